"""In which order a scan is read where its header leaves that open: the image decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView, candidate_orders
from fsmis_components.data.intensity import fit_normaliser
from fsmis_components.data.nifti import is_identity
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding import ScanEncoder
from fsmis_components.encoding.slice_descriptors import layout_similarity, slice_descriptors
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.scan_profile import shape_cell, spread_places
from fsmis_components.support.support_pack import SupportPack

_LAYOUT = 4.0  # weight of where things lie in the mean slice, against what changes along z
# an order must look so much better than the one that is taken for granted; a body is nearly its own
# mirror image, and most files without a header are stored as their neighbours are
_MARGIN = 0.08
# against what a header says: of scans that lie as the support does no other way leads by more
# than 0.09 (one heart by CoW)
_TURNED_MARGIN = 0.1
_THINNEST = 8  # slices more than so many times narrower than the support's are mere lines
_FEW, _MANY = 4, 12  # slices in a first look at all orders, and in a second at the best
_PLANES = 4  # ways to lay a slice that get a second look; the right one was among the best three
_NEVER = 10.0  # cost of a line that runs backwards: the reversed order is a candidate of its own


def decide_view(encoder: ScanEncoder, volume: Volume, pack: SupportPack) -> SliceView:
    """A scan on the grid of its support, read as its header or, where that fails, its image tells.

    An ordinary header leaves one order, and nothing is encoded. Else some slices in each of the
    `candidate_orders` are compared with those of the support scans, along the best line through z
    and by what lies where in their mean. The order of `SliceView` stays unless another looks
    clearly better.
    """
    said = volume.oriented and not is_identity(volume.affine)
    first, *others = candidate_orders(volume, pack.grid, said and pack.profiles[0].oriented)
    view = SliceView(volume, pack.grid, first)
    if not others:
        return view
    likeness = _Likeness(encoder, volume, pack)
    views = [view, *_possible(volume, pack, others)]
    planes = [_forwards(each.order) for each in views]
    if len(set(planes)) > _PLANES:
        rough = [likeness.of(each, _FEW) for each in views]
        ranked = [planes[index] for index in np.argsort(rough, kind="stable")[::-1]]
        best = list(dict.fromkeys(ranked))[:_PLANES]
        views = [view, *(each for each in views[1:] if _forwards(each.order) in best)]
    found = [likeness.of(each, _MANY) for each in views]
    index = int(np.argmax(found))
    return views[index] if found[index] > found[0] + _MARGIN else view


def turned_view(encoder: ScanEncoder, view: SliceView, pack: SupportPack) -> SliceView | None:
    """A scan with slices, rows or columns read the other way round; None: better not.

    It is asked of a doubtful scan; some slices are encoded each way. The expected Dice does not
    take part: a body is nearly its own mirror image, and a liver found on the wrong side may be
    expected to be good.
    """
    likeness = _Likeness(encoder, view.volume, pack)
    views = {turn: SliceView(view.volume, view.grid, turn) for turn in turns_of(view.order)}
    found = {order: likeness.of(each, _MANY) for order, each in views.items()}
    best = max(found, key=found.__getitem__)
    if found[best] <= found[view.order] + _TURNED_MARGIN:
        return None
    return views[best]


def turns_of(order: StorageOrder) -> list[StorageOrder]:
    """An order with slices, rows and columns read one way and the other."""
    return [replace(order, backwards=(s, r, c)) for s, r, c in product((False, True), repeat=3)]


class _Likeness:
    """How like the support a scan looks in one order or another."""

    def __init__(self, encoder: ScanEncoder, volume: Volume, pack: SupportPack) -> None:
        self.encoder = encoder
        self.pack = pack
        self.normalise = fit_normaliser(volume, pack.normalisation)
        self._encoded: dict[tuple[StorageOrder, int], tuple[Tensor, int]] = {}

    def of(self, view: SliceView, most: int) -> float:
        """By so many evenly spaced slices, a mean over the support scans."""
        key = _forwards(view.order), most  # backwards the same slices follow each other
        if key not in self._encoded:
            self._encoded[key] = self._encode(SliceView(view.volume, view.grid, key[0]), most)
        descriptors, step = self._encoded[key]
        if view.order.backwards[0]:
            descriptors = descriptors.flip(0)
        scores = []
        for profile in self.pack.profiles:
            support = profile.descriptors.float()
            slope = profile.slope_of(view.native_spacing[0] * step)
            line = align(descriptors, support, slope, reversed_cost=_NEVER)
            scores.append(line.similarity + _LAYOUT * layout_similarity(descriptors, support))
        return float(np.mean(scores))

    def _encode(self, view: SliceView, most: int) -> tuple[Tensor, int]:
        """Descriptors of evenly spaced slices, and the distance between these."""
        places = spread_places(view.depth, most)
        slices = torch.cat([self.normalise(view.slices(place, place + 1)) for place in places])
        features = self.encoder.slices(slices)
        step = int(places[1] - places[0]) if len(places) > 1 else 1
        field = self.pack.profiles[0].field_on(view.working_size, shape_cell(view.grid))
        return slice_descriptors(features.high, field).cpu(), step


def _forwards(order: StorageOrder) -> StorageOrder:
    """The order of the same rows and columns whose slices follow each other as they are stored."""
    _, rows, columns = order.backwards
    return replace(order, backwards=(False, rows, columns))


def _possible(
    volume: Volume, pack: SupportPack, orders: Iterable[StorageOrder]
) -> Iterable[SliceView]:
    """Views of a scan in some orders, without those whose slices are mere lines."""
    for order in orders:
        try:
            view = SliceView(volume, pack.grid, order)
        except DataError:  # of absurd size: the scan was not cut so
            continue
        if min(view.working_size) * _THINNEST >= pack.grid.spatial_size:
            yield view
