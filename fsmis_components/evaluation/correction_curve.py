"""Dice against the number of corrected scans: what a user gains by putting results right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.scoring import Query, load_query
from fsmis_components.evaluation.subjects.network import NetworkSubject
from fsmis_components.inferers.slabs import encode_slabs
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.support.encode import frozen
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.join_packs import join_packs
from fsmis_components.support.planes import build_planes
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportSet, support_set_of_cases


@dataclass(frozen=True)
class CurvePoint:
    """One structure of one scan, segmented after other scans of the folder were corrected.

    Attributes:
        case: the scan; its own mask is never corrected.
        corrected: number of other scans whose masks have joined the support.
        structure: name of the structure.
        dice: Dice in percent over the whole volume.
    """

    case: str
    corrected: int
    structure: str
    dice: float


def correction_curve(
    subject: NetworkSubject,
    support: SupportSet,
    queries: Sequence[Case],
    counts: Sequence[int],
    cache: FeatureCache,
) -> Iterator[CurvePoint]:
    """Segment each scan of a folder with more and more of the others corrected.

    The label of a scan stands for its corrected mask. For each scan the others are corrected in the
    order of the folder, beginning with the one behind it, so each helps equally often.

    Args:
        subject: loaded with the weights for these scans.
        support: the labelled scans that there are before any correction.
        queries: the scans of the folder, with labels.
        counts: numbers of corrected scans, each below the number of queries.
        cache: keeps the features, so that each scan is encoded once.

    Yields:
        A point per scan, number and structure that the scan's label holds.

    Raises:
        DataError: more corrections than other scans, or a scan without a label.
    """
    if not 0 <= min(counts) <= max(counts) < len(queries):
        raise DataError(
            f"corrections: expected 0 to {len(queries) - 1} (there are {len(queries)} scans), got "
            f"{list(counts)}."
        )
    encoding: dict[str, Any] = {
        "batch_size": subject.batch_size,
        "amp": subject.amp,
        "cache": cache,
    }
    base = build_planes(subject.network, support, **subject.geometry, **encoding)
    values = [structure.value for structure in base.structures]
    added = [
        build_planes(
            subject.network,
            SupportSet(support_set_of_cases([case]).scans, base.structures, str(case.label)),
            grids=base.grids,
            normalisation=base.normalisation,
            partial=True,
            **encoding,
        )
        for case in queries[: len(queries) if max(counts) else 0]
    ]
    for place, case in enumerate(queries):
        others = [*added[place + 1 :], *added[:place]]
        query = load_query(case, values, base.grid)
        for count in counts:
            masks = _masks(subject, join_packs([base, *others[:count]]), query, cache)
            for index, structure in enumerate(base.structures):
                truth, found = query.truth[:, index], masks[:, index]
                if truth.any():
                    total = int(found.sum()) + int(truth.sum())
                    dice = 200.0 * int((found & truth).sum()) / total
                    yield CurvePoint(case.name, count, structure.name, dice)


def _masks(
    subject: NetworkSubject, pack: SupportPack, query: Query, cache: FeatureCache
) -> np.ndarray:
    """Masks (D, N, h, w) of a scan; its label is not looked at."""
    inferer = subject.inferer or VolumeInferer(pack, subject.batch_size, subject.amp)
    view = SliceView(query.image, pack.grid)
    with frozen(subject.network), torch.inference_mode():
        slabs = list(
            encode_slabs(
                subject.network,
                query.image,
                view,
                pack,
                batch_size=subject.batch_size,
                amp=subject.amp,
                cache=cache,
            )
        )
        label = inferer.segment_slabs(slabs, view, pack, subject.network).label
    slices = SliceView(Volume(label, query.image.affine), pack.grid).native_labels()
    return np.stack([slices == structure.value for structure in pack.structures], axis=1)
