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
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.episodes.corpus import CorpusSettings, fit_images, normalised_slices
from fsmis_components.episodes.dataset import EpisodeDataset, RedrawnEpisodes
from fsmis_components.episodes.episode import Episode, PatientDrawer, PatientRule, PatientTable
from fsmis_components.episodes.transform import PatientTransform

NEAR_ISOTROPIC = 1.5  # largest spacing over smallest; below it a scan may be cut in any plane


@dataclass(frozen=True)
class PatientVolume:
    """A labelled scan cut in one plane.

    Attributes:
        images: normalised slices, (D, H, W) float16, H = W = spatial_size.
        label: the label map as slices, at its native resolution.
        table: where its structures are.
    """

    images: np.ndarray
    label: SliceView
    table: PatientTable


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
        rule = rule or PatientRule()
        self.transform = transform
        self.length = length
        self.corpus: list[PatientVolume] = []
        for case in tqdm(data, desc="labelled scans", unit="scan", disable=len(data) < 2):
            self.corpus += _patient_volumes(case, settings, patient_pattern)
        tables = [volume.table for volume in self.corpus]
        self.drawer = PatientDrawer(tables, rule, seed, batch_size)

    def _make(self, episode: Episode) -> dict[str, Tensor] | None:
        support = self._slices(episode.support, episode.support_slices, episode.ways)
        query = self._slices(episode.query, (episode.query_slice,), episode.ways)
        if self.transform is not None:
            support, query = self.transform(support, query, episode.seed)
        if not bool(support[1].any(-1).any(-1).all()):
            return None
        return {
            "image": query[0][0],
            "label": query[1][0],
            "support_image": support[0],
            "support_label": support[1],
            "redraws": torch.tensor(episode.attempt),
        }

    def _slices(
        self, volume: int, places: Sequence[int], structures: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Images (S, 1, H, W) and masks (S, N, H, W) of some slices."""
        scan = self.corpus[volume]
        images = torch.from_numpy(scan.images[list(places)].astype(np.float32)).unsqueeze(1)
        masks = [scan.label.labels(place, place + 1, structures) for place in places]
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
        supervised_share: float = 0.5,
        batch_size: int = 1,
        seed: int = 0,
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
) -> list[PatientVolume]:
    if case.label is None:
        raise DataError(f"{case.image}: episodes between patients need a label for each scan.")
    image = load_image(case.image)
    label = load_label(case.label, image)
    found = re.match(patient_pattern, case.name)
    patient = found.group(0) if found else case.name
    modality = resolve_modality(image, settings.modality)
    volumes = []
    for axis in _planes(image, settings):
        view, slices = normalised_slices(image, modality, replace(settings, slice_axis=axis))
        label_view = SliceView(label, view.grid)
        table = PatientTable(
            _areas(label_view), patient, (str(case.image.parent), view.grid.slice_axis)
        )
        volumes.append(PatientVolume(fit_images(slices, settings.spatial_size), label_view, table))
    return volumes


def _planes(image: Volume, settings: CorpusSettings) -> tuple[str | int, ...]:
    near_isotropic = max(image.spacing) <= NEAR_ISOTROPIC * min(image.spacing)
    if settings.slice_axis == "auto" and near_isotropic and not settings.ignore_spacing:
        return (0, 1, 2)
    return (settings.slice_axis,)


def _areas(view: SliceView) -> np.ndarray:
    """Pixels of each label value in each slice at the working resolution, (D, V + 1)."""
    slices = view.native_labels()
    count = int(slices.max()) + 1
    scale = np.prod(view.working_size) / np.prod(view.native_size)
    counts = np.stack([np.bincount(s.ravel(), minlength=count) for s in slices])
    return (counts * scale).astype(np.int32)
