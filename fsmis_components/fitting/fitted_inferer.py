"""The answer for a scan: student and teacher, by the gate the teacher alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.run_record import CaseRow
from fsmis_components.data.volumes import Volume, load_label
from fsmis_components.fitting.gate import GATE, judge
from fsmis_components.fitting.student_scans import student_image, student_shares
from fsmis_components.inferers.clean_up import clean_up
from fsmis_components.inferers.expected_shapes import Topology, pack_topologies
from fsmis_components.inferers.segmentation import Segmentation, label_values
from fsmis_components.inferers.trust import CaseTrust, ScanCheck, check_scan
from fsmis_components.support import SupportPack

_SLAB = 16  # slices that go back to the scan's grid at a time


@dataclass
class FittedInferer:
    """Segment scans of the folder to which students were fitted, and new ones of its kind.

    `FolderEvaluator` uses it as it does a `VolumeInferer`.
    """

    pack: SupportPack  # of the teacher
    segment: Callable[[Volume], Segmentation]  # the teacher, of scans that it has not segmented yet
    # a scan as slices on the student's grid, in the order that the teacher's warning tells
    view_of: Callable[[Volume, str], SliceView]
    judges: Sequence[nn.Module]  # students of the two halves of the folder
    answers: Mapping[Path, CaseRow]  # of the teacher, by the path of the scan
    masks: Path  # folder of the teacher's
    usual: Sequence[float]  # `usual_volume` of each structure
    identity: Mapping[str, Any]  # of the fit, for the record of the run
    uncertainty: bool  # also make the uncertainty map

    def resolve(self, network: nn.Module) -> SupportPack:
        """The teacher's support."""
        return self.pack

    def settings(self, network: nn.Module) -> dict[str, Any]:
        """What changes a result, as JSON values; of the student the fit tells."""
        return {"fit": dict(self.identity), "gate": asdict(GATE), "uncertainty": self.uncertainty}

    def segment_volume(
        self, volume: Volume, network: nn.Module, pack: SupportPack | None = None
    ) -> Segmentation:
        """Segment one scan by the last student and the teacher; the gate judges.

        All students are new to a scan that is not of the folder, so that none agrees with the
        teacher because it learned the same mask. `pack` is what `resolve` gives, whatever is handed
        over. That the scan or the teacher's mask cannot be read is a `DataError`.
        """
        answer = None if volume.source is None else self.answers.get(volume.source)
        if answer is None:  # a new scan, or one that the bundle failed on, which tells why again
            found = self.segment(volume)
            expected_dice, said = tuple(found.expected_dice.values()), list(found.warnings)
            teacher = found.label
        else:
            columns = [structure.column for structure in self.pack.structures]
            expected_dice = tuple(answer.expected_dice.get(column, 0.0) for column in columns)
            said = [answer.warning] if answer.warning else []
            kept_mask = load_label(self.masks / f"{answer.case}_seg.nii.gz", volume)
            teacher = np.asarray(kept_mask.data)
        view = self.view_of(volume, " ".join(said))
        image = student_image(view, self.pack.normalisation)
        shares = student_shares(network, image)
        mask, largest = self._mask(view, shares)
        judged = [self._mask(view, student_shares(each, image))[0] for each in self.judges]
        taught = view.stacked(teacher)
        label, _ = self._mask(view, shares, taught)
        kept, dice = [], []
        for structure, expected, usual in zip(
            self.pack.structures, expected_dice, self.usual, strict=True
        ):
            value = structure.value
            those = [each == value for each in (mask, *judged, taught)]
            stays, expected_of_answer = judge(those, volume.voxel_ml, expected, usual)
            dice.append(expected_of_answer)
            if stays:
                kept.append(structure.name)
                label[label == value] = 0
                label[(taught == value) & (label == 0)] = value
        if kept:
            said.append(f"{', '.join(kept)}: the mask before fitting, the students disagree.")
        uncertainty = None
        if self.uncertainty:
            uncertainty = view.restack((255 * (1.0 - largest)).round().astype(np.uint8))
        # of the scan itself the teacher has said everything
        scan = ScanCheck(check_scan(view, self.pack).modality, ())
        trust = CaseTrust(tuple(dice), " ".join(said))
        return Segmentation(view.restack(label), uncertainty, self.pack, trust, scan)

    def _mask(
        self, view: SliceView, shares: Tensor, taught: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label values (D, h, w) at the scan's resolution and the largest probability there.

        To the probabilities of the student the mask of the teacher adds its share.
        """
        values = label_values([structure.value for structure in self.pack.structures])
        labels, largest = [], []
        for start in range(0, len(shares), _SLAB):
            channels = view.to_native_logits(shares[start : start + _SLAB])
            if taught is not None:
                for channel, value in enumerate(values):
                    agrees = torch.from_numpy(taught[start : start + _SLAB] == value)
                    channels[:, channel] += GATE.teacher_share * agrees
            best = channels.max(1)
            labels.append(best.indices.to(torch.uint8))
            largest.append(best.values)
        label = clean_up(values[torch.cat(labels).numpy()], values[1:].tolist(), self._topologies)
        return label, torch.cat(largest).numpy()

    @cached_property
    def _topologies(self) -> list[Topology]:
        return pack_topologies(self.pack)
