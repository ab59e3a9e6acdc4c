"""The training volumes as stacks of normalised slices with pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.field_of_view import CT_FRACTION
from fsmis_components.data.geometry import SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.training_cases import excluded, shown_structures
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.episodes.episode import RegionTable
from fsmis_components.transforms.pseudo_labels import PseudoLabels


@dataclass(frozen=True)
class CorpusVolume:
    """One volume, ready for drawing.

    Attributes:
        name: the case's name.
        images: normalised slices, (D, H, W) float16, H = W = spatial_size.
        labels: pseudo-label ids, (D, H, W), 0 outside the body.
        table: where the regions are.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    table: RegionTable


@dataclass(frozen=True)
class CorpusSettings:
    """How volumes become slices; the same rules as in volume inference.

    Attributes:
        spatial_size: side of a slice in pixels; a volume's larger in-plane extent fills it.
        modality: ``auto``, ``mr`` or ``ct``.
        slice_axis: ``auto``, 0, 1 or 2 (left-right, posterior-anterior, inferior-superior).
        ignore_spacing: take voxels as square where headers lie.
        exclude_labels: label values of Setting 2; slices that show them are not drawn.
        exclude_rule: drop a slice that shows ``any`` (SSL-ALPNet) or only ``all`` of them.
    """

    spatial_size: int = 256
    modality: str = "auto"
    slice_axis: str | int = "auto"
    ignore_spacing: bool = False
    exclude_labels: tuple[int, ...] = ()
    exclude_rule: str = "any"


def load_corpus(
    cases: Sequence[Case], pseudo_labels: Sequence[PseudoLabels], settings: CorpusSettings
) -> list[CorpusVolume]:
    """Read the cases and make their pseudo-labels, or take those from the cache.

    The groups that are drawn with equal chance are the folders that the cases lie in. Several
    kinds of pseudo-labels give several entries of a volume, which share its images.

    Raises:
        DataError: a case cannot be read, or Setting 2 is asked for without labels.
    """
    folders = sorted({case.image.parent for case in cases})
    corpus = []
    for case in tqdm(cases, desc="pseudo-labels", unit="scan", disable=len(cases) < 2):
        volume = load_image(case.image)
        modality = resolve_modality(volume, settings.modality)
        view, images = normalised_slices(volume, modality, settings)
        allowed = _allowed(case, volume, view, settings)
        group = folders.index(case.image.parent)
        fitted = fit_images(images, settings.spatial_size)
        for kind in pseudo_labels:
            labels = _fit(_suited(kind, view, modality)(images), settings.spatial_size, 0)
            table = RegionTable.from_labels(labels, allowed, group)
            corpus.append(CorpusVolume(case.name, fitted, labels, table))
    return corpus


def _suited(kind: PseudoLabels, view: SliceView, modality: str) -> PseudoLabels:
    """Suit the settings to a volume: the body's threshold in CT, the smoothing of enlarged slices.

    Where a slice is enlarged, regions would follow the edges of the old pixels.
    """
    enlargement = view.working_size[0] / view.native_size[0]
    sigma = 0.5 * enlargement if enlargement > 2 else kind.sigma
    fraction = CT_FRACTION if modality == "ct" else kind.body_fraction
    return replace(kind, sigma=sigma, body_fraction=fraction)


def normalised_slices(
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
    images = normalise(view.slices(0, view.depth))[:, 0].numpy()
    return view, images


def _allowed(
    case: Case, volume: Volume, view: SliceView, settings: CorpusSettings
) -> np.ndarray | None:
    if not settings.exclude_labels:
        return None
    shown = shown_structures(case, volume, view.grid, settings.exclude_labels)
    return np.logical_not(excluded(shown, settings.exclude_rule))


def fit_images(images: np.ndarray, size: int) -> np.ndarray:
    """Normalised slices as float16 (D, size, size); what is added is as dark as the darkest."""
    return _fit(images, size, float(images.min())).astype(np.float16)


def _fit(slices: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Crop or pad (D, H, W) about the centre to (D, size, size)."""
    return centre_fit(torch.from_numpy(slices), (size, size), fill).numpy()
