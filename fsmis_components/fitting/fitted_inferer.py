"""The answer for a scan: student and teacher, by the gate the teacher alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume, load_label
from fsmis_components.fitting.gate import GateRule, Opinion, UsualVolumes, decide
from fsmis_components.fitting.student_scans import student_image, student_shares
from fsmis_components.inferers.clean_up import clean_up
from fsmis_components.inferers.expected_shapes import pack_topologies
from fsmis_components.inferers.segmentation import Segmentation, label_dtype
from fsmis_components.inferers.trust import CaseTrust, ScanCheck, check_scan
from fsmis_components.support import SupportPack

_SLAB = 16  # slices that go back to the scan's grid at a time
ViewOf = Callable[[Volume, str], SliceView]


@dataclass(frozen=True)
class TeacherAnswer:
    """What the bundle itself made of a scan."""

    mask: Path
    expected_dice: tuple[float, ...]  # per structure, in [0, 1]
    warning: str


class FittedInferer(Inferer):
    """Segment scans of the folder to which students were fitted, and new ones of its kind.

    Args:
        pack: the teacher's support.
        segment: the bundle itself, for scans that it has not segmented yet.
        view_of: a scan as slices on the student's grid, in the order in which the teacher read it,
            which the teacher's warning tells.
        judges: students of the two halves of the folder.
        teacher: the bundle's answer for each scan, by the path of the scan.
        usual: per structure, which volumes are.
        gate: when a mask is believed.
        identity: of the fit, for the record of the run.
        uncertainty: also make the uncertainty map.
    """

    def __init__(
        self,
        pack: SupportPack,
        segment: Callable[[Volume], Segmentation],
        view_of: ViewOf,
        judges: Sequence[nn.Module],
        teacher: Mapping[Path, TeacherAnswer],
        usual: Sequence[UsualVolumes],
        gate: GateRule,
        identity: Mapping[str, Any],
        uncertainty: bool = False,
    ) -> None:
        super().__init__()
        self.pack = pack
        self.segment = segment
        self.view_of = view_of
        self.judges = judges
        self.teacher = teacher
        self.topologies = pack_topologies(pack)
        self.usual = usual
        self.gate = gate
        self.identity = identity
        self.uncertainty = uncertainty

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Not served: the answer needs the scan itself."""
        raise NotImplementedError("FittedInferer segments scans by volume")

    def resolve(self, network: nn.Module) -> SupportPack:
        """The teacher's support."""
        return self.pack

    def settings(self, network: nn.Module) -> dict[str, Any]:
        """What changes a result, as JSON values; of the student the fit tells."""
        return {
            "fit": dict(self.identity),
            "gate": asdict(self.gate),
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
        values = [structure.value for structure in self.pack.structures]
        shares = student_shares(network, image)
        mask, largest = self._mask(view, shares)
        uncertainty = None
        if self.uncertainty:
            uncertainty = view.restack((255 * (1.0 - largest)).round().astype(np.uint8))
        masks = [mask, *(self._mask(view, student_shares(each, image))[0] for each in self.judges)]
        taught = view.stacked(teacher)
        opinions = [
            Opinion.of([mask == value for mask in (*masks, taught)], volume.voxel_ml, expected)
            for value, expected in zip(values, expected_dice, strict=True)
        ]
        verdicts = decide(opinions, self.usual, self.gate)
        label = self._mask(view, shares, taught)[0]
        for value, verdict in zip(values, verdicts, strict=True):
            if verdict.teacher:
                label[label == value] = 0
                label[(taught == value) & (label == 0)] = value
        names = [structure.name for structure in self.pack.structures]
        kept = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.teacher]
        said = [warning] if warning else []
        if kept:
            said.append(f"{', '.join(kept)}: the mask before fitting, the students disagree.")
        trust = CaseTrust(tuple(verdict.expected_dice for verdict in verdicts), " ".join(said))
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
            numbers = np.zeros(taught.shape, np.int64)
            for number, value in enumerate(values):
                numbers[taught == value] = number
        label, largest = _on_scan(view, shares, numbers, self.gate.teacher_share)
        label = values.astype(label_dtype(int(values.max())))[label]
        return clean_up(label, values[1:].tolist(), self.topologies), largest


def _on_scan(
    view: SliceView, shares: Tensor, taught: np.ndarray | None, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Channels (D, h, w) at the scan's resolution and what they have there at the most."""
    labels, largest = [], []
    for start in range(0, len(shares), _SLAB):
        channels = view.to_native_logits(shares[start : start + _SLAB])
        if taught is not None:
            numbers = torch.from_numpy(taught[start : start + _SLAB])[:, None]
            channels.scatter_add_(1, numbers, torch.full(numbers.shape, share))
        best = channels.max(1)
        labels.append(best.indices.to(torch.uint8))
        largest.append(best.values)
    return torch.cat(labels).numpy(), torch.cat(largest).numpy()
