"""Volume inference: scans in, label maps on each scan's own grid out."""

from fsmis_components.inferers.folder_evaluator import FolderEvaluator, query_items
from fsmis_components.inferers.half_precision import AutocastInferer
from fsmis_components.inferers.segmentation import Segmentation
from fsmis_components.inferers.volume_inferer import VolumeInferer

__all__ = ["AutocastInferer", "FolderEvaluator", "Segmentation", "VolumeInferer", "query_items"]
