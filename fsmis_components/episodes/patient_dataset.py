"""Episodes between patients as tensors, and their mixture with label-free ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.geometry import SliceView, centre_fit
from fsmis_components.data.intensity import resolve_modality
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.episodes.dataset import (
    CorpusSettings,
    EpisodeDataset,
    RedrawnEpisodes,
    fit_images,
    normalised_slices,
)
from fsmis_components.episodes.episode import (
    PatientDrawer,
    PatientRule,
    PatientTable,
    count_pixels,
)
from fsmis_components.episodes.transform import PatientTransform

NEAR_ISOTROPIC = 1.5  # largest spacing over smallest; below it a scan may be cut in any plane


@dataclass(frozen=True)
class _PatientVolume:
    """A labelled scan cut in one plane."""

    images: np.ndarray  # normalised slices, (D, H, W) float16, H = W = spatial_size
    label: SliceView  # the label map as slices, at its native resolution
    table: PatientTable  # where its structures are


class PatientEpisodeDataset(RedrawnEpisodes):
    """Supervised episodes between two patients; item i is a pure function of the seed and of i.

    Args:
        data: labelled cases; the scans of one folder are of one kind.
        rule: how episodes are drawn.
        transform: random transforms; None for episodes that stay as they are.
        settings: how volumes become slices. With slice_axis `auto` a near-isotropic scan is cut in
            all three planes.
        seed: seed of all draws.
        batch_size: as many consecutive episodes have one number of support slices.
        patient_pattern: the part of a case's name that names the patient.
        length: number of episodes where the dataset is read without a sampler.

    Raises:
        SystemExit: the data cannot be used; the message says why.
    """

    lost = "a structure of its support"
    query_shows_ways = False

    @exit_on_data_error
    def __init__(
        self,
        data: Sequence[Case],
        rule: PatientRule | None = None,
        transform: PatientTransform | None = None,
        settings: CorpusSettings | None = None,
        seed: int = 0,
        batch_size: int = 1,
        patient_pattern: str = "[^_]*",
        length: int = 1000,
    ) -> None:
        settings = settings or CorpusSettings()
        self.transform = transform
        self.length = length
        self.corpus: list[_PatientVolume] = []
        for case in tqdm(data, desc="labelled scans", unit="scan", disable=len(data) < 2):
            self.corpus += _patient_volumes(case, settings, patient_pattern)
        tables = [volume.table for volume in self.corpus]
        self.drawer = PatientDrawer(tables, rule or PatientRule(), seed, batch_size)

    def _slices(
        self, volume: int, places: Sequence[int], ways: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        scan = self.corpus[volume]
        images = torch.from_numpy(scan.images[list(places)].astype(np.float32)).unsqueeze(1)
        masks = [scan.label.labels(place, place + 1, ways) for place in places]
        return images, centre_fit(torch.cat(masks), images.shape[-2:])


class MixedEpisodes(Dataset[dict[str, Tensor]]):
    """Batches of label-free and of supervised episodes in turn, drawn by the batch's number.

    Args:
        label_free: episodes of pseudo-labels.
        between_patients: supervised episodes.
        supervised_share: share of the batches that are supervised, 0 to 1.
        batch_size: episodes of a batch, over all processes; consecutive episodes are of one kind.
        seed: seed of the draws.
    """

    def __init__(
        self,
        label_free: EpisodeDataset,
        between_patients: PatientEpisodeDataset,
        supervised_share: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.label_free = label_free
        self.between_patients = between_patients
        self.supervised_share = supervised_share
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of episodes of one pass."""
        return len(self.label_free)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return episode ``index`` of either kind."""
        rng = np.random.default_rng([self.seed, 2, index // self.batch_size])
        if rng.random() < self.supervised_share:
            return self.between_patients[index]
        return self.label_free[index]


def _patient_volumes(
    case: Case, settings: CorpusSettings, patient_pattern: str
) -> list[_PatientVolume]:
    if case.label is None:
        raise DataError(f"{case.image}: episodes between patients need a label for each scan.")
    image = load_image(case.image)
    label = load_label(case.label, image)
    found = re.match(patient_pattern, case.name)
    patient = found.group(0) if found else case.name
    modality = resolve_modality(image, settings.modality)
    near_isotropic = max(image.spacing) <= NEAR_ISOTROPIC * min(image.spacing)
    axes: tuple[str | int, ...] = (settings.slice_axis,)
    if settings.slice_axis == "auto" and near_isotropic and not settings.ignore_spacing:
        axes = (0, 1, 2)
    volumes = []
    for axis in axes:
        view, slices = normalised_slices(image, modality, replace(settings, slice_axis=axis))
        labels = SliceView(label, view.grid)
        # pixels of the working resolution
        scale = np.prod(labels.working_size) / np.prod(labels.native_size)
        areas = (count_pixels(labels.native_labels()) * scale).astype(np.int32)
        table = PatientTable(areas, patient, (str(case.image.parent), view.grid.slice_axis))
        volumes.append(_PatientVolume(fit_images(slices, settings.spatial_size), labels, table))
    return volumes
