"""The student as a MONAI bundle that stands alone: MONAI's own parts, nothing of this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from torch import nn

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import writing
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.weights import write_torch
from fsmis_components.inferers.expected_shapes import pack_topologies
from fsmis_components.support import SupportPack

_TEMPLATES = Path(__file__).parent / "templates"


def write_student_bundle(
    folder: Path,
    network: nn.Module,
    make_network: partial[nn.Module],
    pack: SupportPack,
    view: SliceView,
    num_scans: int,
    num_labelled: int,
) -> None:
    """Write a bundle for new scans, unless header spacings are not trusted, as MONAI trusts them.

    Args:
        folder: receives `configs/`, `models/` and `docs/`; an error in it is a `DataError`.
        network: the student.
        make_network: what made it, as configs give it.
        pack: of the teacher, whose structures and intensities are the student's too.
        view: a labelled scan on the student's grid.
        num_scans: scans that it learned from without labels.
        num_labelled: scans that it learned from with labels.
    """
    if view.grid.spacing is None:
        return
    definition = {
        "_target_": f"{make_network.func.__module__}.{make_network.func.__qualname__}",
        **make_network.keywords,
    }
    page = (_TEMPLATES / "student_readme.txt").read_text(encoding="utf-8")
    page = page.format(
        title="A student: " + ", ".join(each.name for each in pack.structures),
        scans=num_scans,
        labelled=num_labelled,
        noun="scan" if num_labelled == 1 else "scans",
        values=", ".join(f"{each.value} {each.name}" for each in pack.structures),
        geometry="Any storage order will do; headers must be right."
        if view.grid.directions is None
        else "They must be stored with their axes in the order of the labelled scan, as its slices "
        "are oblique.",
    )
    configs = {"inference": _inference(definition, view, pack), "metadata": _metadata(pack)}
    with writing(folder):
        weights = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        write_torch(weights, folder / "models" / "model.pt")
        for name, content in configs.items():
            text = json.dumps(content, indent=2) + "\n"
            atomic_write_text(folder / "configs" / f"{name}.json", text)
        atomic_write_text(folder / "docs" / "README.md", page)


def _template(name: str) -> Any:
    return json.loads((_TEMPLATES / name).read_text(encoding="utf-8"))


def _inference(definition: Mapping[str, Any], view: SliceView, pack: SupportPack) -> dict[str, Any]:
    config: dict[str, Any] = _template("student_inference.json")
    config["network_def"] = definition
    through, lay, turn = _geometry(view)
    config["inferer"]["spatial_dim"] = through
    load, channel, hide, spacing, show, stack, typed = config["preprocessing"]["transforms"]
    pixels = [view.grid.spacing, view.grid.spacing]
    pixels.insert(through, -1)
    spacing["pixdim"] = pixels
    stack["func"] = stack["func"].replace("AXIS", str(through + 1))
    config["preprocessing"]["transforms"] = [
        *(load, channel),
        # before anything is resampled, as the student's own slices were
        *_intensities(pack.normalisation),
        *(*lay, hide, spacing, show, *turn, stack, typed),
    ]
    *front, largest, values, save = config["postprocessing"]["transforms"]
    single = [number for number, each in enumerate(pack_topologies(pack), 1) if each.parts == 1]
    largest["applied_labels"] = single
    values["target_labels"] = [0, *(structure.value for structure in pack.structures)]
    values["orig_labels"] = list(range(len(values["target_labels"])))
    if max(values["target_labels"]) > 255:
        save["output_dtype"] = "$numpy.int32"
    config["postprocessing"]["transforms"] = [*front, *([largest] if single else []), values, save]
    return config


def _geometry(view: SliceView) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """The array axis of slices, and transforms before and after resampling: rows before columns."""
    if view.grid.directions is None:
        upright = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
        return view.grid.slice_axis, [upright], []
    axes = view.order.axes
    through, row, column = axes
    flipped = [axis for axis, back in zip(axes, view.order.backwards, strict=True) if back]
    lay = [{"_target_": "Flipd", "keys": "image", "spatial_axis": flipped}] if flipped else []
    if row < column:
        return through, lay, []
    order = [0, 1, 2, 3]
    order[1 + row], order[1 + column] = 1 + column, 1 + row
    return through, lay, [{"_target_": "Transposed", "keys": "image", "indices": order}]


def _intensities(normalisation: Normalisation) -> list[dict[str, Any]]:
    """Clipped, from the darkest value on, in standard deviations."""
    if normalisation.modality == "ct":
        lower, upper = normalisation.window
        clip = {"_target_": "ScaleIntensityRanged", "a_min": lower, "a_max": upper}
    else:
        clip = {
            "_target_": "ScaleIntensityRangePercentilesd",
            "lower": 0,
            "upper": 100 * normalisation.clip_quantile,
        }
    return [
        {**clip, "keys": "image", "b_min": 0.0, "b_max": 1.0, "clip": True},
        {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.0},
    ]


def _metadata(pack: SupportPack) -> dict[str, Any]:
    channels = {"0": "background"}
    channels |= {str(number): each.name for number, each in enumerate(pack.structures, 1)}
    metadata: dict[str, Any] = _template("student_metadata.json")
    metadata |= {
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "pred_classes": ", ".join(f"{number} {name}" for number, name in channels.items()),
    }
    if pack.normalisation.modality == "ct":
        metadata["network_data_format"]["inputs"]["image"]["modality"] = "CT"
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred |= {"num_channels": len(channels), "channel_def": channels}
    return metadata
