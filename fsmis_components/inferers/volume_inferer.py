"""Whole-volume inference, label-blind: a scan in, a label map on the scan's own grid out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks import eval_mode
from monai.utils import ImageMetaKey
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.field_of_view import field_of_view
from fsmis_components.data.geometry import SliceView, near_isotropic
from fsmis_components.data.request_error import client_errors
from fsmis_components.data.volumes import NO_DATA, ORIENTED_KEY, Volume
from fsmis_components.encoding import EncodedSlices, FeatureStore, ScanEncoder
from fsmis_components.encoding.identity import computed_by
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.inferers.clean_up import clean_up
from fsmis_components.inferers.encoded_slices import PlaneMargins, SliceStore, segment_slices
from fsmis_components.inferers.expected_shapes import (
    PRIOR,
    Expected,
    ExpectedShapes,
    largest_channel,
    to_cells,
)
from fsmis_components.inferers.intensity_model import INTENSITY, IntensityModel
from fsmis_components.inferers.matching import VolumeMatch, match_volume, spread_thirds
from fsmis_components.inferers.request_answer import answer_facts, drawn_label, keep_drawn
from fsmis_components.inferers.segmentation import Segmentation, label_values
from fsmis_components.inferers.self_test import self_test
from fsmis_components.inferers.slice_order import decide_view, turned_view
from fsmis_components.inferers.trust import (
    CaseTrust,
    TrustMeter,
    check_scan,
    mirror_gain,
    out_of_support,
)
from fsmis_components.support import SupportPack, SupportSet, SupportSource
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.recent import RecentResults
from fsmis_components.support.scan_profile import shape_cell
from fsmis_components.support.self_similarity import tissue_shares
from fsmis_components.support.support_request import (
    RESULT_KEY,
    SUPPORT_KEY,
    ResolvedSupport,
    SupportRequest,
)

_MOST_SHAPES = 9  # of packs whose shapes are kept: the last three supports in three planes


@dataclass(frozen=True)
class VolumeSteps:
    """Steps of the inference of a volume; each can be left out to see what it is worth."""

    # slices are matched with the support by what they look like; False: the support's thirds are
    # spread over the whole scan, and the steps that need a match are left out too
    z_matching: bool = True
    shape_prior: bool = True  # the support's shapes say where a structure is to be expected
    shape_moves: bool = True  # these shapes are moved to where the network sees the structure
    # in place of moves, the support is bent until it looks like the query, where its pack can
    registration: bool = True
    intensity_model: bool = True  # beside these, what the scan's own intensities say
    clean_up: bool = True  # as many parts as in the support, without holes

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, bool):  # the text "false" of a command line counts as true
                raise DataError(f"{name}: expected True or False, got {value!r}.")


class SliceMargins(NamedTuple):
    """Margins (n, N, H, W) of some slices' structures, and the slices (n, H, W) as stored."""

    margins: Tensor
    images: Tensor


class _Plane(NamedTuple):
    """A scan as slices of one plane: their margins, and where structures are expected."""

    view: SliceView
    pack: SupportPack
    kept: SliceStore  # of `SliceMargins`
    match: VolumeMatch | None = None
    expected: Expected | None = None
    mirror_gain: float = 0.0
    intensities: IntensityModel | None = None

    def margins(self) -> Iterator[tuple[int, int, Tensor]]:
        """Batches start..stop-1 and their margins (n, N, H, W) with all that is known of them."""
        for start, stop, margins, images in self._with_shapes():
            if self.intensities is not None:
                margins = self.intensities.add_to(margins, images)
            yield start, stop, margins

    def with_intensities(self) -> _Plane:
        """The same with what the scan's own intensities say of its structures."""
        known = ((images, margins) for _, _, margins, images in self._with_shapes())
        stride = INTENSITY.stride(math.prod((self.view.depth, *self.view.working_size)))
        return self._replace(intensities=IntensityModel.learn(known, stride))

    def _with_shapes(self) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """Batches, their margins with what is expected of them, and their images."""
        for start, stop, (margins, images) in self.kept:
            if self.expected is not None:
                margins = self.expected.added(margins, start, shape_cell(self.pack.grid))
            yield start, stop, margins, images


class VolumeInferer(Inferer):
    """Segment whole volumes by a support; a query label has no place in its interface.

    Features and margins that exceed a fixed amount wait on disk, and margins go back to the scan's
    grid batch by batch, so memory does not grow with a float copy of the volume.

    Args:
        support: a pack, or the source that resolves one for the network.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        uncertainty: also make the uncertainty map (see `Segmentation`).
        steps: which of `VolumeSteps` are taken; None: all.
        cache: where features of scans are kept for later runs; None: nowhere.
    """

    def __init__(
        self,
        support: SupportSource | SupportPack,
        batch_size: int = 8,
        amp: bool = False,
        uncertainty: bool = False,
        steps: Mapping[str, bool] | None = None,
        cache: FeatureStore | None = None,
    ) -> None:
        super().__init__()
        self.support = support
        self.batch_size = batch_size
        self.amp = amp
        self.uncertainty = uncertainty
        self.steps = VolumeSteps(**(steps or {}))
        self.cache = cache
        self._shapes: RecentResults[ExpectedShapes] = RecentResults(_MOST_SHAPES)

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """`segment_volume` for MONAI Label: as its bundle task hands a volume over.

        Args:
            inputs: MetaTensor (1, 1, X, Y, Z); its affine is the scan's, and its meta may hold a
                request for a support of its own (`ResolveSupportd`).
            network: a network of the contract.
            args: none, as kwargs; the base class names them.
            kwargs: none.

        Returns:
            Label map (1, 1, X, Y, Z), integer, with the affine of the input; its meta says which
            support answered (`ReportSupportd`).

        Raises:
            RequestError: the scan or its support cannot be used.
        """
        if not isinstance(inputs, MetaTensor) or inputs.ndim != 5 or inputs.shape[:2] != (1, 1):
            raise ValueError(
                "VolumeInferer: expected a MetaTensor of shape (1, 1, X, Y, Z), got "
                f"{type(inputs).__name__} of shape {tuple(inputs.shape)}"
            )
        meta = dict(inputs.meta)
        affine = inputs.affine[0] if inputs.affine.ndim == 3 else inputs.affine
        request: SupportRequest | None = meta.get(SUPPORT_KEY)
        with client_errors():
            if not bool((inputs.abs() < NO_DATA).all()):  # NaN is not below either
                raise DataError(
                    "image: holds NaN or infinite voxels, or such as mark where there is no data "
                    f"({NO_DATA:g} and beyond); replace them by a number."
                )
            support = self._resolved(network, request)
            data = torch.as_tensor(inputs)[0, 0].detach().cpu().numpy()
            oriented = bool(meta.get(ORIENTED_KEY, True))
            volume = Volume(data, np.asarray(affine, dtype=np.float64), None, oriented)
            result = self.segment_volume(volume, network, support.pack)
            label = result.label
            if request is not None:
                drawn = drawn_label(request, support, meta[ImageMetaKey.FILENAME_OR_OBJ])
                if drawn is not None:
                    axis, _ = SliceView(volume, support.pack.grid).stored_slice(0)
                    label = keep_drawn(label, drawn, axis)
        found = torch.from_numpy(label.astype(np.int32))[None, None].to(inputs.device)
        return MetaTensor(found, meta={**meta, RESULT_KEY: answer_facts(support, result)})

    def encoder(self, network: nn.Module, pack: SupportPack) -> ScanEncoder:
        """What encodes scans for a pack of the network's."""
        return ScanEncoder(network, self.batch_size, self.amp, self.cache, pack.weights_hash)

    def resolve(self, network: nn.Module) -> SupportPack:
        """The support pack for a network, built or read on the first call; none is a DataError."""
        return self._resolved(network).pack

    def _resolved(
        self, network: nn.Module, request: SupportRequest | None = None
    ) -> ResolvedSupport:
        if isinstance(self.support, SupportSource):
            return self.support.resolve_request(network, request, _test_support)
        return ResolvedSupport(self.support, (), self.support.source or "a support pack in memory")

    def settings(self, network: nn.Module) -> dict[str, Any]:
        """What changes a result besides the support and the weights, as JSON values."""
        return {
            **computed_by(network, self.amp),
            "uncertainty": self.uncertainty,
            "steps": asdict(self.steps),
            "prior": asdict(PRIOR),
            "intensity": asdict(INTENSITY),
        }

    def segment_volume(
        self, volume: Volume, network: nn.Module, pack: SupportPack | None = None
    ) -> Segmentation:
        """Segment one scan, in any orientation; the result lies on its own grid.

        The network is left in the mode in which it came; without a `pack` the support is what
        `resolve` gives.
        """
        pack = pack or self.resolve(network)
        encoder, field = self.encoder(network, pack), field_of_view(volume, pack.grid)
        with eval_mode(network), torch.inference_mode():
            view = decide_view(encoder, field.cut(volume), pack)
            found = self._segment(view, pack, encoder)
            doubtful = found.trust is not None and found.trust.warning
            if doubtful and (turned := turned_view(encoder, view, pack)) is not None:
                other = self._segment(turned, pack, encoder)
                # the wrong way round a scan may look more like the support, too
                if other.trust is None or other.trust.is_usable:
                    found = other
        uncertainty = found.uncertainty
        return replace(
            found,
            label=field.put_back(found.label),
            uncertainty=None if uncertainty is None else field.put_back(uncertainty),
        )

    def _segment(self, view: SliceView, pack: SupportPack, encoder: ScanEncoder) -> Segmentation:
        """The segmentation of a scan that is read as a view says."""
        plane = self._first_pass(view, pack, encoder)
        same_part = plane.match is None or plane.match.is_centred(pack)
        # where the image told how this plane lies, nothing tells it of the others
        known = not view.is_reordered and near_isotropic(view.volume, pack.grid)
        fused = pack.planes and same_part and known
        others = self._other_planes(view.volume, pack, encoder) if fused else None
        return self._assemble(plane, others)

    def _other_planes(
        self, volume: Volume, pack: SupportPack, encoder: ScanEncoder
    ) -> PlaneMargins:
        """What the planes of a near-isotropic scan say beside the first."""
        total = PlaneMargins(len(pack.structures), volume.shape)
        for each in pack.planes:
            plane = self._first_pass(SliceView(volume, each.grid), each, encoder)
            for start, stop, margins in plane.margins():
                total.add(plane.view, start, stop, plane.view.to_native_logits(margins))
        return total

    def _first_pass(self, view: SliceView, pack: SupportPack, encoder: ScanEncoder) -> _Plane:
        """Encode all slices, keep their margins and say where structures are to be expected."""
        encoded, kept = SliceStore(), SliceStore()
        for slices in encoder.scan(view, pack.normalisation):
            encoded.add(slices)
        steps = self.steps

        def keep(weights: Tensor, areas: Tensor | None = None) -> None:
            for slices in encoded:
                margins = segment_slices(encoder, slices, pack.state, weights, areas)[:, 1:].cpu()
                images = view.slices(slices.start, slices.stop)[:, 0]
                kept.add(EncodedSlices(slices.start, slices.stop, SliceMargins(margins, images)))

        if not steps.z_matching:
            keep(spread_thirds(view.depth, pack.sections))
            return _Plane(view, pack, kept)
        cell = shape_cell(pack.grid)
        field = pack.profiles[0].field_on(view.working_size, cell)
        descriptors = torch.cat([slice_descriptors(s.features.high, field).cpu() for s in encoded])
        # a shape goes only where the network has looked; a blurred one has faint ends
        fits = steps.shape_prior and (steps.shape_moves or steps.registration)
        match = match_volume(
            descriptors,
            view.native_spacing[0],
            pack,
            reach=PRIOR.reach_slices if fits else 0.0,
            slack=1.0 if steps.shape_prior else 0.0,
            tissues=tissue_shares(view, pack.normalisation, cell),
        )
        if not steps.shape_prior:
            keep(match.section_weights)
            return _Plane(view, pack, kept)
        shapes = self._expected(pack)
        if steps.shape_moves and not (steps.registration and shapes.registrable):
            keep(match.section_weights)
            evidence = torch.cat([to_cells(slices.features.margins, cell) for slices in kept])
            expected = shapes.of(match, view, evidence, steps.registration)
        else:
            expected = shapes.of(match, view, None, steps.registration)
            keep(match.section_weights, expected.areas(cell, view.working_size))
        gain = mirror_gain(descriptors, view.native_spacing[0], pack, match)
        plane = _Plane(view, pack, kept, match, expected, gain)
        return plane.with_intensities() if steps.intensity_model else plane

    def _expected(self, pack: SupportPack) -> ExpectedShapes:
        # shapes hold their pack, so no other one can have its identity while they are kept
        return self._shapes.get(id(pack), partial(ExpectedShapes, pack))

    def _assemble(self, plane: _Plane, others: PlaneMargins | None) -> Segmentation:
        """Margins and expected shapes compete on the scan's grid; the result is as it is stored."""
        view, pack, expected = plane.view, plane.pack, plane.expected
        values = label_values([structure.value for structure in pack.structures])
        label = np.zeros((view.depth, *view.native_size), values.dtype)
        uncertainty = np.zeros(label.shape, np.uint8) if self.uncertainty else None
        meter = TrustMeter(len(pack.structures), shape_cell(pack.grid))
        for start, stop, margins in plane.margins():
            part = slice(start, stop)
            if expected is not None:
                meter.add(margins, expected.fitted[part])
            # channel 0 is the background, whose margin is zero
            logits = view.to_native_logits(F.pad(margins, (0, 0, 0, 0, 1, 0)))
            if others is not None:
                logits[:, 1:] = others.fused(view, start, stop, logits[:, 1:])
            label[part] = values[largest_channel(logits).numpy()]
            if uncertainty is not None:
                largest = logits.softmax(1).amax(1)
                uncertainty[part] = (255 * (1.0 - largest)).round().numpy()
        trust = None
        if expected is not None and plane.match is not None:
            dice = meter.expected_dice(expected.likeness)
            doubt = out_of_support(dice, plane.match, view, pack, plane.mirror_gain)
            trust = CaseTrust(dice, doubt)
        if self.steps.clean_up and self.steps.z_matching:
            clean_up(label, values[1:].tolist(), self._expected(pack).topologies)
        return Segmentation(
            view.restack(label),
            None if uncertainty is None else view.restack(uncertainty),
            pack,
            trust,
            check_scan(view, pack),
        )


def _test_support(encoder: ScanEncoder, support_set: SupportSet, pack: SupportPack) -> Calibration:
    def segment(scan: Volume, others: SupportPack) -> np.ndarray:
        inferer = VolumeInferer(others, encoder.batch_size, encoder.amp, cache=encoder.cache)
        return inferer.segment_volume(scan, encoder.network).label

    return self_test(encoder, support_set, pack, segment)
