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
from fsmis_components.data.volumes import Volume, load_label
from fsmis_components.fitting.gate import GATE, judge
from fsmis_components.fitting.student_scans import student_image, student_shares
from fsmis_components.inferers.clean_up import clean_up
from fsmis_components.inferers.expected_shapes import Topology, pack_topologies
from fsmis_components.inferers.segmentation import Segmentation, label_dtype
from fsmis_components.inferers.trust import CaseTrust, ScanCheck, check_scan
from fsmis_components.support import SupportPack

_SLAB = 16  # slices that go back to the scan's grid at a time


@dataclass(frozen=True)
class TeacherAnswer:
    """What the bundle itself made of a scan; volumes (ml) and Dice in [0, 1] per structure."""

    mask: Path
    volumes: tuple[float, ...]
    expected_dice: tuple[float, ...]
    warning: str


@dataclass
class FittedInferer:
    """Segment scans of the folder to which students were fitted, and new ones of its kind.

    `FolderEvaluator` uses it as it does a `VolumeInferer`.

    Attributes:
        pack: the teacher's support.
        segment: the bundle itself, for scans that it has not segmented yet.
        view_of: a scan as slices on the student's grid, in the order in which the teacher read it,
            which the teacher's warning tells.
        judges: students of the two halves of the folder.
        teacher: the bundle's answer for each scan, by the path of the scan.
        usual: `usual_volume` of each structure.
        identity: of the fit, for the record of the run.
        uncertainty: also make the uncertainty map.
    """

    pack: SupportPack
    segment: Callable[[Volume], Segmentation]
    view_of: Callable[[Volume, str], SliceView]
    judges: Sequence[nn.Module]
    teacher: Mapping[Path, TeacherAnswer]
    usual: Sequence[float]
    identity: Mapping[str, Any]
    uncertainty: bool

    def resolve(self, network: nn.Module) -> SupportPack:
        """The teacher's support."""
        return self.pack

    def settings(self, network: nn.Module) -> dict[str, Any]:
        """What changes a result, as JSON values; of the student the fit tells."""
        return {
            "fit": dict(self.identity),
            "gate": asdict(GATE),
            "uncertainty": self.uncertainty,
        }

    def segment_volume(
        self, volume: Volume, network: nn.Module, pack: SupportPack | None = None
    ) -> Segmentation:
        """Segment one scan by the last student and the teacher; the gate judges.

        All students are new to a scan that is not of the folder, so that none agrees with the
        teacher because it learned the same mask. `pack` is what `resolve` gives, whatever is handed
        over.

        Raises:
            DataError: the scan or the teacher's mask cannot be read.
        """
        answer = None if volume.source is None else self.teacher.get(volume.source)
        if answer is None:  # a new scan, or one that the bundle failed on, which tells why again
            found = self.segment(volume)
            expected = tuple(found.expected_dice.values())
            return self._judged(volume, network, found.label, expected, " ".join(found.warnings))
        mask = np.asarray(load_label(answer.mask, volume).data)
        return self._judged(volume, network, mask, answer.expected_dice, answer.warning)

    def _judged(
        self,
        volume: Volume,
        network: nn.Module,
        teacher: np.ndarray,
        expected_dice: Sequence[float],
        warning: str,
    ) -> Segmentation:
        """What student and teacher, a mask (X, Y, Z), make of a scan, by the gate."""
        view = self.view_of(volume, warning)
        image = student_image(view, self.pack.normalisation)
        shares = student_shares(network, image)
        mask, largest = self._mask(view, shares)
        uncertainty = None
        if self.uncertainty:
            uncertainty = view.restack((255 * (1.0 - largest)).round().astype(np.uint8))
        masks = [mask, *(self._mask(view, student_shares(each, image))[0] for each in self.judges)]
        taught = view.stacked(teacher)
        label = self._mask(view, shares, taught)[0]
        kept, dice = [], []
        for structure, expected, usual in zip(
            self.pack.structures, expected_dice, self.usual, strict=True
        ):
            value = structure.value
            those = [mask == value for mask in (*masks, taught)]
            stays, expected_of_answer = judge(those, volume.voxel_ml, expected, usual)
            dice.append(expected_of_answer)
            if stays:
                kept.append(structure.name)
                label[label == value] = 0
                label[(taught == value) & (label == 0)] = value
        said = [warning] if warning else []
        if kept:
            said.append(f"{', '.join(kept)}: the mask before fitting, the students disagree.")
        trust = CaseTrust(tuple(dice), " ".join(said))
        # of the scan itself the teacher has said everything
        scan = ScanCheck(check_scan(view, self.pack).modality, ())
        return Segmentation(view.restack(label), uncertainty, self.pack, trust, scan)

    def _mask(
        self, view: SliceView, shares: Tensor, taught: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label values (D, h, w) at the scan's resolution and the largest probability there.

        To the probabilities of the student the mask of the teacher adds its share.
        """
        values = np.array([0, *(structure.value for structure in self.pack.structures)])
        numbers = None
        if taught is not None:
            numbers = torch.zeros(taught.shape, dtype=torch.int64)
            for number, value in enumerate(values):
                numbers[torch.from_numpy(taught == value)] = number
        labels, largest = [], []
        for start in range(0, len(shares), _SLAB):
            channels = view.to_native_logits(shares[start : start + _SLAB])
            if numbers is not None:
                added = numbers[start : start + _SLAB, None]
                channels.scatter_add_(1, added, torch.full(added.shape, GATE.teacher_share))
            best = channels.max(1)
            labels.append(best.indices.to(torch.uint8))
            largest.append(best.values)
        label = values.astype(label_dtype(int(values.max())))[torch.cat(labels).numpy()]
        label = clean_up(label, values[1:].tolist(), self._topologies)
        return label, torch.cat(largest).numpy()

    @cached_property
    def _topologies(self) -> list[Topology]:
        return pack_topologies(self.pack)
