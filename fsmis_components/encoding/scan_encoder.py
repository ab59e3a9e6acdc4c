"""The one way from a scan to a network's features; support and query take it alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import Normalisation, fit_normaliser
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding.feature_cache import (
    EncodedSlices,
    FeatureStore,
    feature_key,
    features_kind,
)
from fsmis_components.encoding.identity import computed_by, network_method, weights_hash
from fsmis_components.encoding.slice_descriptors import slice_descriptors


class ScanEncoder:
    """A network of the contract that encodes slices; its mode is left to the caller.

    `batch_size` slices go through it at once, with `amp` under bfloat16 autocast. Features that the
    cache keeps are read, others are kept there. `weights` is the network's `weights_hash` where
    that is at hand.
    """

    def __init__(
        self,
        network: nn.Module,
        batch_size: int = 8,
        amp: bool = False,
        cache: FeatureStore | None = None,
        weights: str | None = None,
    ) -> None:
        self.network = network
        self.batch_size = batch_size
        self.amp = amp
        self.cache = cache
        self.weights = weights
        parameter = next(network.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device

    def scan(
        self, view: SliceView, normalisation: Normalisation, measured: Volume | None = None
    ) -> Iterator[EncodedSlices]:
        """Encode a scan batch by batch, so that memory does not grow with its depth.

        Intensities are normalised by what is `measured` of a volume; None: of the scan itself.
        """
        measured = view.volume if measured is None else measured
        encoded = self._encoded(view, normalisation, measured)
        if self.cache is None:
            yield from encoded
            return
        settings = {
            "method": network_method(self.network),
            "normalisation": normalisation.to_dict(),
            "batch_size": self.batch_size,  # the size of a batch decides how sums are rounded
            **computed_by(self.network, self.amp),
            "device": self.device.type,
        }
        key = feature_key(view, self.weights or weights_hash(self.network), settings)
        if key in self.cache:
            yield from self.cache.read(key, features_kind(self.network), self.device)
        else:
            yield from self.cache.keep(key, encoded, measured.title)

    def descriptors(
        self, view: SliceView, normalisation: Normalisation, measured: Volume | None = None
    ) -> Tensor:
        """`slice_descriptors` (D, F) of a scan, on the CPU; arguments as `scan`."""
        encoded = self.scan(view, normalisation, measured)
        return torch.cat([slice_descriptors(each.features.high).cpu() for each in encoded])

    def slices(self, images: Tensor) -> Any:
        """Features of slices (B, 1, H, W), encoded in batches: the network's own NamedTuple."""
        parts = []
        for batch in images.split(self.batch_size):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp):
                parts.append(self.network.encode(batch.to(self.device)))  # type: ignore[operator]
        return join_features(parts)

    def _encoded(
        self, view: SliceView, normalisation: Normalisation, measured: Volume
    ) -> Iterator[EncodedSlices]:
        normalise = fit_normaliser(measured, normalisation)
        for start in range(0, view.depth, self.batch_size):
            stop = min(start + self.batch_size, view.depth)
            images = normalise(view.slices(start, stop))
            yield EncodedSlices(start, stop, self.slices(images))


def join_features(parts: Sequence[Any]) -> Any:
    """Join feature tuples along the batch axis; what is no tensor is taken from the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return type(first)(
        *(
            torch.cat([part[index] for part in parts]) if torch.is_tensor(entry) else entry
            for index, entry in enumerate(first)
        )
    )


def chosen_features(features: Any, index: Sequence[int]) -> Any:
    """The features of some slices; what is no tensor is kept."""
    rows = list(index)
    return type(features)(*(entry[rows] if torch.is_tensor(entry) else entry for entry in features))
