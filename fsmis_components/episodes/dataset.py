"""Datasets of episodes, of pseudo-labels and between patients, drawn and made on demand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.field_of_view import CT_FRACTION
from fsmis_components.data.geometry import SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.training_cases import excluded, shown_structures
from fsmis_components.data.volume_names import strip_volume_suffix
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.episodes.episode import (
    Episode,
    EpisodeDrawer,
    EpisodeRule,
    PatientDrawer,
    PatientRule,
    PatientTable,
    RegionTable,
    count_pixels,
)
from fsmis_components.episodes.transform import EpisodeTransform, PatientTransform
from fsmis_components.transforms.pseudo_labels import PseudoLabels

MAX_ATTEMPTS = 50
NEAR_ISOTROPIC = 1.5  # largest spacing over smallest; below it a scan may be cut in any plane


@dataclass(frozen=True)
class CorpusSettings:
    """How volumes become slices; the same rules as in volume inference."""

    spatial_size: int = 256  # side of a slice in pixels; the larger in-plane extent fills it
    modality: str = "auto"  # or mr, ct
    slice_axis: str | int = "auto"  # 0, 1, 2: left-right, posterior-anterior, inferior-superior
    ignore_spacing: bool = False  # take voxels as square where headers lie
    exclude_labels: tuple[int, ...] = ()  # of Setting 2; slices that show them are not drawn
    exclude_rule: str = "any"  # drop a slice that shows any (SSL-ALPNet) or only all of them


@dataclass(frozen=True)
class _Volume:
    images: np.ndarray  # normalised slices, (D, H, W) float16, H = W = spatial_size
    # pseudo-label ids (D, H, W), 0 outside the body; of labelled scans a `SliceView` of the labels
    labels: Any
    table: Any  # where its regions or structures are


class RedrawnEpisodes(Dataset[dict[str, Tensor]]):
    """Episodes by their number; one that loses a region in the warp is drawn again, and counted.

    Subclasses set the attributes and give ``_masks``.
    """

    corpus: list[_Volume]
    drawer: Any  # draws the episode of a number and an attempt
    transform: Any  # random transforms; None for episodes that stay as they are
    length: int  # number of episodes where the dataset is read without a sampler
    lost = "a region"  # what an episode must not lose, for the message
    query_shows_ways = True

    def __len__(self) -> int:
        """Return the number of episodes of one pass."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return episode ``index``.

        Returns:
            image (1, H, W) and label (N, H, W) of the query, support_image (S, 1, H, W),
            support_label (S, N, H, W), redraws ().
        """
        for attempt in range(MAX_ATTEMPTS):
            item = self._make(self.drawer.draw(index, attempt))
            if item is not None:
                return item
        raise RuntimeError(
            f"{type(self).__name__}: episode {index} lost {self.lost} in each of {MAX_ATTEMPTS} "
            "draws; use weaker transforms or a larger min_area"
        )

    def _make(self, episode: Episode) -> dict[str, Tensor] | None:
        """The tensors of an episode; None where it lost a region."""
        support = self._slices(episode.support, episode.support_slices, episode.ways)
        query = self._slices(episode.query, (episode.query_slice,), episode.ways)
        if self.transform is not None:
            support, query = self.transform(support, query, episode.seed)
        for _, masks in (support, query) if self.query_shows_ways else (support,):
            if not bool(masks.any(-1).any(-1).all()):
                return None
        return {
            "image": query[0][0],
            "label": query[1][0],
            "support_image": support[0],
            "support_label": support[1],
            "redraws": torch.tensor(episode.attempt),
        }

    def _slices(
        self, volume: int, places: Sequence[int], ways: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Images (S, 1, H, W) and masks (S, N, H, W) of some slices of a volume."""
        scan = self.corpus[volume]
        images = torch.from_numpy(scan.images[list(places)].astype(np.float32)).unsqueeze(1)
        return images, self._masks(scan, places, ways)

    def _masks(self, scan: _Volume, places: Sequence[int], ways: Sequence[int]) -> Tensor:
        raise NotImplementedError


class EpisodeDataset(RedrawnEpisodes):
    """Episodes as tensors; item i is a pure function of the seed and of i.

    Args:
        data: cases, or MONAI's dictionaries with an ``image`` path.
        pseudo_labels: makes the regions of a volume; several kinds are drawn equally often.
        rule: how episodes are drawn.
        transform: random transforms; None for held-out episodes that must stay as they are.
        settings: how volumes become slices.
        seed: seed of all draws.
        length: number of episodes where the dataset is read without a sampler.
        otherwise: cases to take where `data` is empty, as the held-out part of very few scans is.

    Raises:
        SystemExit: the data cannot be used; the message says why.
    """

    @exit_on_data_error
    def __init__(
        self,
        data: Sequence[Case | Mapping[str, object]],
        pseudo_labels: PseudoLabels | Sequence[PseudoLabels],
        rule: EpisodeRule | None = None,
        transform: EpisodeTransform | None = None,
        settings: CorpusSettings | None = None,
        seed: int = 0,
        length: int = 1000,
        otherwise: Sequence[Case | Mapping[str, object]] = (),
    ) -> None:
        self.data = data = data or otherwise
        if not data:
            raise DataError("no scan to train on: label one and submit it, or name a dataset_dir.")
        self.transform = transform
        self.length = length
        cases = [_as_case(item) for item in data]
        kinds = [pseudo_labels] if isinstance(pseudo_labels, PseudoLabels) else pseudo_labels
        self.corpus = _load_corpus(cases, kinds, settings or CorpusSettings())
        tables = [volume.table for volume in self.corpus]
        self.drawer = EpisodeDrawer(tables, rule or EpisodeRule(), seed)

    def _masks(self, scan: _Volume, places: Sequence[int], ways: Sequence[int]) -> Tensor:
        masks = scan.labels[list(places), None] == np.array(ways)[:, None, None]
        return torch.from_numpy(masks.astype(np.float32))


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
        self.corpus = []
        for case in tqdm(data, desc="labelled scans", unit="scan", disable=len(data) < 2):
            self.corpus += _patient_volumes(case, settings, patient_pattern)
        tables = [volume.table for volume in self.corpus]
        self.drawer = PatientDrawer(tables, rule or PatientRule(), seed, batch_size)

    def _masks(self, scan: _Volume, places: Sequence[int], ways: Sequence[int]) -> Tensor:
        masks = [scan.labels.labels(place, place + 1, ways) for place in places]
        return centre_fit(torch.cat(masks), scan.images.shape[-2:])


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


def _load_corpus(
    cases: Sequence[Case], pseudo_labels: Sequence[PseudoLabels], settings: CorpusSettings
) -> list[_Volume]:
    """Read the cases and make their pseudo-labels, or take those from the cache.

    The groups that are drawn with equal chance are the folders that the cases lie in. Several
    kinds of pseudo-labels give several entries of a volume, which share its images.
    """
    folders = sorted({case.image.parent for case in cases})
    corpus = []
    for case in tqdm(cases, desc="pseudo-labels", unit="scan", disable=len(cases) < 2):
        volume = load_image(case.image)
        modality = resolve_modality(volume, settings.modality)
        view, images = _normalised_slices(volume, modality, settings)
        allowed = None
        if settings.exclude_labels:
            shown = shown_structures(case, volume, view.grid, settings.exclude_labels)
            allowed = np.logical_not(excluded(shown, settings.exclude_rule))
        group = folders.index(case.image.parent)
        fitted = _fit_images(images, settings.spatial_size)
        for kind in pseudo_labels:
            labels = _fit(_suited(kind, view, modality)(images), settings.spatial_size, 0)
            table = RegionTable.from_labels(labels, allowed, group)
            corpus.append(_Volume(fitted, labels, table))
    return corpus


def _suited(kind: PseudoLabels, view: SliceView, modality: str) -> PseudoLabels:
    """Suit the settings to a volume: the body's threshold in CT, the smoothing of enlarged slices.

    Where a slice is enlarged, regions would follow the edges of the old pixels.
    """
    enlargement = view.working_size[0] / view.native_size[0]
    sigma = 0.5 * enlargement if enlargement > 2 else kind.sigma
    fraction = CT_FRACTION if modality == "ct" else kind.body_fraction
    return replace(kind, sigma=sigma, body_fraction=fraction)


def _normalised_slices(
    volume: Volume, modality: str, settings: CorpusSettings
) -> tuple[SliceView, np.ndarray]:
    """A scan of modality `mr` or `ct` on its working grid, and its slices, float32 (D, h, w)."""
    grid = choose_slice_grid(
        volume,
        spatial_size=settings.spatial_size,
        slice_axis=settings.slice_axis,
        ignore_spacing=settings.ignore_spacing,
    )
    view = SliceView(volume, grid)
    normalise = fit_normaliser(volume, Normalisation(modality=modality))
    return view, normalise(view.slices(0, view.depth))[:, 0].numpy()


def _fit_images(images: np.ndarray, size: int) -> np.ndarray:
    """Normalised slices as float16 (D, size, size); what is added is as dark as the darkest."""
    return _fit(images, size, float(images.min())).astype(np.float16)


def _fit(slices: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Crop or pad (D, H, W) about the centre to (D, size, size)."""
    return centre_fit(torch.from_numpy(slices), (size, size), fill).numpy()


def _as_case(item: Case | Mapping[str, object]) -> Case:
    if isinstance(item, Case):
        return item
    image = Path(str(item["image"]))
    label = Path(str(item["label"])) if "label" in item else None
    return Case(strip_volume_suffix(image.name), image, label)


def _patient_volumes(case: Case, settings: CorpusSettings, patient_pattern: str) -> list[_Volume]:
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
        view, slices = _normalised_slices(image, modality, replace(settings, slice_axis=axis))
        labels = SliceView(label, view.grid)
        # pixels of the working resolution
        scale = np.prod(labels.working_size) / np.prod(labels.native_size)
        areas = (count_pixels(labels.native_labels()) * scale).astype(np.int32)
        table = PatientTable(areas, patient, (str(case.image.parent), view.grid.slice_axis))
        volumes.append(_Volume(_fit_images(slices, settings.spatial_size), labels, table))
    return volumes
