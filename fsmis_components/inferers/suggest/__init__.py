"""Which unlabelled scan of a folder to label next, and which of its slices."""

from fsmis_components.inferers.suggest.folder import FolderLooks, look_at_folder
from fsmis_components.inferers.suggest.likeness import compare_scans
from fsmis_components.inferers.suggest.look_store import LookStore
from fsmis_components.inferers.suggest.picture import save_picture
from fsmis_components.inferers.suggest.scan_look import LookRule, ScanLook, look_at
from fsmis_components.inferers.suggest.suggestion import RankedScan, suggest
from fsmis_components.inferers.suggest.tables import csv_text, json_text, printed

__all__ = [
    "FolderLooks",
    "LookRule",
    "LookStore",
    "RankedScan",
    "ScanLook",
    "compare_scans",
    "csv_text",
    "json_text",
    "look_at",
    "look_at_folder",
    "printed",
    "save_picture",
    "suggest",
]
