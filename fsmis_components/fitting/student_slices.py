"""What the student learns from: slices, drawn evenly over structures and mixed between patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from fsmis_components.data.geometry import centre_fit
from fsmis_components.fitting.student_scans import StudentScan, whole_side, with_neighbours
from fsmis_components.transforms.contrast import ContrastRanges, apply_contrast, draw_contrast
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp


@dataclass(frozen=True)
class StudentRule:
    """How slices are drawn and changed."""

    labelled_weight: float = 4.0  # how often a labelled scan is drawn for each unlabelled one
    # share of slices that show a structure, each as often as the others; the rest is any slice
    structure_share: float = 0.7
    # share of slices into which a rectangle of another patient is put, of a slice at the same place
    # (CutMix, Yun et al., ICCV 2019; between patients as in BCP, Bai et al., CVPR 2023)
    mixed: float = 0.5
    rectangle: tuple[float, float] = (0.25, 0.6)  # smallest and largest sides, shares of a slice's
    warp: WarpRanges | None = None  # None: rotation by 15 degrees, shift by a tenth of a side
    # the order of grey values stays
    contrast: ContrastRanges = field(
        default_factory=lambda: ContrastRanges(
            remap_probability=0.3,
            rising_probability=1.0,
            dark_background_probability=1.0,
            strength=(0.2, 0.8),
        )
    )
    brightness: tuple[float, float] = (0.7, 1.4)  # factors of a slice's values


class StudentSlices(Dataset[dict[str, Tensor]]):
    """Numbered random slices: the same number gives the same slice.

    Args:
        scans: labelled and unlabelled ones, with the masks to learn.
        num_structures: N.
        rule: how slices are drawn.
        seed: of the draws.
    """

    def __init__(
        self,
        scans: Sequence[StudentScan],
        num_structures: int,
        rule: StudentRule | None = None,
        seed: int = 0,
    ) -> None:
        self.scans = list(scans)
        self.num_structures = num_structures
        self.rule = rule or StudentRule()
        self.seed = seed
        weights = [self.rule.labelled_weight if scan.labelled else 1.0 for scan in self.scans]
        self._chances = np.array(weights) / sum(weights)
        self._middles = [scan.middle for scan in self.scans]
        self._shown = [_learned_slices(scan, num_structures) for scan in self.scans]
        self.size = tuple(
            whole_side(max(scan.image.shape[axis] for scan in self.scans)) for axis in (1, 2)
        )
        side = max(self.size)
        self._warp = self.rule.warp or WarpRanges(
            rotation=15.0,
            translation=0.1 * side,
            shear=5.0,
            zoom=(0.8, 1.2),
            elastic_alpha=0.5 * side,
            elastic_sigma=6.0,
            shear_about="centre",
        )

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides the slices."""
        parts = sha256(repr((self.rule, self.seed, self.num_structures)).encode())
        for scan in self.scans:
            parts.update(repr((scan.name, scan.spacing, scan.labelled)).encode())
            for tensor in (scan.image, scan.label, scan.doubtful):
                parts.update(tensor.numpy().tobytes())
        return parts.hexdigest()

    def __len__(self) -> int:
        """Return a number that no training reaches; the sampler names the slices of an epoch."""
        return 2**31

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return "image" (3, H, W) and "label" (1 + N, H, W).

        The label is one-hot, with -1 throughout a structure that is doubtful in this slice.
        """
        rng = np.random.default_rng([self.seed, index])
        number = int(rng.choice(len(self.scans), p=self._chances))
        place = self._place(rng, number)
        image, label, doubtful = self._slice(number, place)
        if len(self.scans) > 1 and rng.random() < self.rule.mixed:
            image, label, others = self._mixed(rng, number, place, image, label)
            doubtful = doubtful | others
        image = apply_contrast(image, draw_contrast(rng, self.rule.contrast))
        image = image * float(rng.uniform(*self.rule.brightness))
        masks = F.one_hot(label.long(), 1 + self.num_structures).movedim(-1, 0)[1:].float()
        image, masks = apply_warp(image, masks, draw_warp(rng, self._warp), padding="minimum")
        masks[doubtful] = -1.0
        return {"image": image, "label": torch.cat([1.0 - masks.clamp(0).amax(0, True), masks])}

    def _place(self, rng: np.random.Generator, number: int) -> int:
        shown = self._shown[number]
        if shown and rng.random() < self.rule.structure_share:
            slices = shown[int(rng.integers(len(shown)))]
            return slices[int(rng.integers(len(slices)))]
        return int(rng.integers(len(self.scans[number].image)))

    def _slice(self, number: int, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """A slice with its neighbours, float32 (3, H, W), its label (H, W) and its doubt (N,)."""
        scan = self.scans[number]
        image = centre_fit(with_neighbours(scan.image, place, place + 1)[0], self.size)
        return image, centre_fit(scan.label[place].float(), self.size), scan.doubtful[place]

    def _mixed(
        self, rng: np.random.Generator, number: int, place: int, image: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put a rectangle of another scan, of its slice at the same distance from the middle."""
        other = int(rng.integers(len(self.scans) - 1))
        other += other >= number
        scan = self.scans[other]
        distance = (place - self._middles[number]) * self.scans[number].spacing
        there = round(self._middles[other] + distance / scan.spacing)
        piece, marks, doubtful = self._slice(other, min(max(there, 0), len(scan.image) - 1))
        image, label = image.clone(), label.clone()
        corner = []
        for side in self.size:
            length = round(side * float(rng.uniform(*self.rule.rectangle)))
            start = int(rng.integers(side - length + 1))
            corner.append(slice(start, start + length))
        rows, columns = corner
        image[:, rows, columns] = piece[:, rows, columns]
        label[rows, columns] = marks[rows, columns]
        return image, label, doubtful


def _learned_slices(scan: StudentScan, num_structures: int) -> list[list[int]]:
    """Slices that show a structure which may be learned there; structures without one left out."""
    shown = [(scan.label == number).flatten(1).any(1) for number in range(1, num_structures + 1)]
    learned = torch.stack(shown, 1) & ~scan.doubtful
    return [slices for column in learned.T if (slices := torch.nonzero(column)[:, 0].tolist())]
