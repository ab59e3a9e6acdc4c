"""UniverSeg, where the user gives its package and its weights: an example of a method of one's own.

Everything that such a method needs is here: how it gets slices of a support and of a query, how its
answer goes back to the query's own grid, and what tells its results apart from others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError, needed
from fsmis_components.data.geometry import SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.volumes import Volume
from fsmis_components.data.weights import fill_network
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.evaluation.subjects.base import Group, Subject, label_map, scan_slices
from fsmis_components.support.encode import structure_masks
from fsmis_components.support.support_set import SupportSet

SIZE = 128  # pixels along each side of a slice, as its authors demand
MOST_EXAMPLES = 64  # support slices per pass, as the released weights were trained
_PACKAGE = "pip install git+https://github.com/JJGO/UniverSeg.git"
_WEIGHTS = "universeg_v1_nf64_ss64_STA.pt of https://github.com/JJGO/UniverSeg/releases/tag/weights"


class UniverSeg(Subject):
    """Segment by UniverSeg (Butoi et al., ICCV 2023), one pass per structure and query slice.

    Every query slice sees the same support slices: with three labelled slices per structure and
    scan these, with all slices labelled all of them, those without the structure too, at most 64,
    evenly spaced. Told where a structure begins and ends, its label-blind answer is cut to that.

    The larger in-plane extent of the first support scan fills 128 pixels; every scan is cut at the
    same millimetres per pixel, centred on 128 x 128, padded with each slice's darkest value and
    cropped where it is larger. Intensities are clipped as for the bundles and stretched to 0..1 per
    scan. Logits go back to the scan's grid linearly; above 0 is the structure, and among several
    structures the largest logit wins.

    Args:
        weights: file with the released state dict; it is never downloaded here.
        modality: "mr", "ct" or "auto" (by the first scan's intensities).
        slice_axis, ignore_spacing: as in `choose_slice_grid`.

    Raises:
        DataError: the package or the weights are missing, or the weights are others.
    """

    name = "universeg"
    setting = "given"

    def __init__(
        self,
        weights: str | Path | None,
        modality: str = "auto",
        slice_axis: str | int = "auto",
        ignore_spacing: bool = False,
    ) -> None:
        missing = f"universeg: its package is missing; install it by '{_PACKAGE}'."
        package = needed("universeg", missing)
        if not weights or not Path(weights).is_file():
            raise DataError(f"universeg: {weights}: no such weights file; download {_WEIGHTS}.")
        # random first weights, overwritten below: the global random state stays as it is
        with torch.random.fork_rng(devices=[]):
            self.network: nn.Module = package.universeg(pretrained=False).eval()
        fill_network(self.network, weights)
        self.modality = modality
        self.reading = {"slice_axis": slice_axis, "ignore_spacing": ignore_spacing}

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        weights = weights_hash(self.network)
        return {"weights": weights, "modality": self.modality, **self.reading}

    @torch.inference_mode()
    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`."""
        first = support.scans[0].image
        grid = choose_slice_grid(first, spatial_size=SIZE, **self.reading)  # type: ignore[arg-type]
        clipping = Normalisation(modality=resolve_modality(first, self.modality))
        values = [structure.value for structure in support.structures]
        images, masks = [], []
        for scan in support.scans:
            images.append(_unit_slices(SliceView(scan.image, grid), clipping))
            labels = structure_masks(SliceView(scan.label, grid), values)
            masks.append(centre_fit(labels.float(), (SIZE, SIZE)))
        shown, labels = torch.cat(images), torch.cat(masks)  # (S, 1, 128, 128), (S, N, 128, 128)
        view = SliceView(query_image, grid)
        winners = []
        for image in _unit_slices(view, clipping):
            answers = []
            for index, structure in enumerate(support.structures):
                used = torch.nonzero(labels[:, index].flatten(1).any(1)).flatten()
                if not len(used):
                    raise DataError(
                        f"{support.source}: structure {structure.name} (label value "
                        f"{structure.value}) is in no support scan; label it there."
                    )
                if support.slices == "all":
                    used = torch.arange(len(shown))
                if len(used) > MOST_EXAMPLES:  # evenly spaced
                    places = torch.arange(1, 2 * MOST_EXAMPLES, 2) * len(used)
                    used = used[places // (2 * MOST_EXAMPLES)]
                examples = shown[used][None], labels[used, index, None][None]
                answers.append(self.network(image[None], *examples))
            logits = centre_fit(torch.cat(answers, dim=1), view.working_size)
            largest, channel = view.to_native_logits(logits).max(1)
            winners.append(torch.where(largest > 0, channel + 1, 0))
        return label_map(view, values, winners)


def _unit_slices(view: SliceView, clipping: Normalisation) -> Tensor:
    """All slices (D, 1, 128, 128) of a scan: clipped, then stretched to 0..1 within the scan."""
    limits = fit_normaliser(view.volume, clipping)
    voxels = np.asarray(view.volume.data)
    darkest = max(limits.lower, float(voxels.min()))
    extent = min(limits.upper, float(voxels.max())) - darkest

    def scale(image: Tensor) -> Tensor:
        return (image.clamp(darkest, darkest + extent) - darkest) / (extent or 1.0)

    return scan_slices(view, scale, (SIZE, SIZE))
