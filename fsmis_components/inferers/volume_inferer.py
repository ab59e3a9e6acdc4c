"""Whole-volume inference, label-blind: a scan in, a label map on the scan's own grid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.matching import SectionMatching, spread_thirds
from fsmis_components.inferers.slabs import Slab, encode_slabs, segment_slab
from fsmis_components.support.encode import frozen
from fsmis_components.support.source import SupportSource
from fsmis_components.support.support_pack import SupportPack


@dataclass(frozen=True)
class Segmentation:
    """A segmented scan, in its stored axis order.

    Args:
        label: (X, Y, Z), the support's label values, 0 elsewhere.
        uncertainty: float32 (X, Y, Z), 1 minus the largest probability; None unless asked.
        pack: the support pack that was used.
    """

    label: np.ndarray
    uncertainty: np.ndarray | None
    pack: SupportPack


class VolumeInferer(Inferer):
    """Segment whole volumes by a support; a query label has no place in its interface.

    Slices go through the network in batches, each once for all structures; margins go back to the
    scan's grid batch by batch, so no float copy of the volume per structure exists.

    Args:
        support: a pack, or the source that resolves one for the network.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        uncertainty: also make the uncertainty map (see `segment_volume`).
        matching: rule that says which support slices answer for which query slice.
    """

    def __init__(
        self,
        support: SupportSource | SupportPack,
        batch_size: int = 8,
        amp: bool = False,
        uncertainty: bool = False,
        matching: SectionMatching = spread_thirds,
    ) -> None:
        super().__init__()
        self.support = support
        self.batch_size = batch_size
        self.amp = amp
        self.uncertainty = uncertainty
        self.matching = matching

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment one volume as MONAI hands it over.

        Args:
            inputs: MetaTensor (1, 1, X, Y, Z); its affine is the scan's.
            network: a network of the contract.
            args: none; accepted because the base class names them.
            kwargs: as args.

        Returns:
            Label map (1, 1, X, Y, Z), integer, with the affine of the input.
        """
        if inputs.ndim != 5 or inputs.shape[:2] != (1, 1):
            raise ValueError(
                "VolumeInferer: expected one volume of shape (1, 1, X, Y, Z), got "
                f"{tuple(inputs.shape)}"
            )
        if not isinstance(network, nn.Module):
            raise TypeError(f"VolumeInferer: expected a network module, got {type(network)}")
        if not bool(torch.isfinite(inputs).all()):
            raise DataError("image: holds NaN or infinite voxels; replace them by a number.")
        affine = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        affine = affine[0] if affine.ndim == 3 else affine
        data = torch.as_tensor(inputs)[0, 0].detach().cpu().numpy()
        volume = Volume(data, np.asarray(affine, dtype=np.float64), None)
        label = torch.from_numpy(self.segment_volume(volume, network).label.astype(np.int32))
        label = label[None, None].to(inputs.device)
        if isinstance(inputs, MetaTensor):
            return MetaTensor(label, meta=dict(inputs.meta))
        return label

    def resolve(self, network: nn.Module) -> SupportPack:
        """The support pack for a network; built or read on the first call.

        Raises:
            DataError: there is no support, or none that fits the network.
        """
        if isinstance(self.support, SupportSource):
            return self.support.resolve(network)
        return self.support

    def settings(self) -> dict[str, Any]:
        """What changes a result besides support and network, as JSON values."""
        matching = getattr(self.matching, "__name__", type(self.matching).__name__)
        return {"amp": self.amp, "uncertainty": self.uncertainty, "matching": matching}

    def segment_volume(self, volume: Volume, network: nn.Module) -> Segmentation:
        """Segment one scan.

        Args:
            volume: the scan, in any orientation.
            network: a network of the contract; left in the mode in which it came.

        Returns:
            Labels on the scan's own grid.

        Raises:
            DataError: there is no support that fits the network.
        """
        pack = self.resolve(network)
        view = SliceView(volume, pack.grid)
        with frozen(network), torch.inference_mode():
            slabs = encode_slabs(
                network, volume, view, pack, batch_size=self.batch_size, amp=self.amp
            )
            return self.segment_slabs(slabs, view, pack, network)

    def segment_slabs(
        self, slabs: Iterable[Slab], view: SliceView, pack: SupportPack, network: nn.Module
    ) -> Segmentation:
        """Segment a scan whose slices are encoded already.

        Args:
            slabs: all slices of the scan in order.
            view: the scan on the grid of the pack.
            pack: the support.
            network: in evaluation mode, the one that encoded the slices.
        """
        weights = self.matching(view.depth, pack.sections)
        values = np.array([0, *(structure.value for structure in pack.structures)])
        values = values.astype(smallest_label_dtype(int(values.max())))
        label = np.zeros((view.depth, *view.native_size), values.dtype)
        doubt = np.zeros(label.shape, np.float32) if self.uncertainty else None
        for slab in slabs:
            logits = segment_slab(network, slab, pack.state, weights, amp=self.amp)
            logits = view.to_native_logits(logits)
            label[slab.start : slab.stop] = values[logits.argmax(1).cpu().numpy()]
            if doubt is not None:
                largest = logits.softmax(1).amax(1)
                doubt[slab.start : slab.stop] = (1.0 - largest).cpu().numpy()
        uncertainty = None if doubt is None else view.restack(doubt)
        return Segmentation(view.restack(label), uncertainty, pack)


def smallest_label_dtype(largest: int) -> np.dtype:
    """The smallest unsigned integer type that holds the label values."""
    if largest > np.iinfo(np.uint32).max:
        raise DataError(f"label value {largest} is too large; relabel the support below 2**32.")
    return np.min_scalar_type(largest)
