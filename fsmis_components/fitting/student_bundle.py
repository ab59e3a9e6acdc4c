"""The student as a MONAI bundle that stands alone: MONAI's own parts, nothing of this package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from fsmis_components.support.support_set import Structure

_NEIGHBOURS = (
    "$lambda x: torch.cat([x.index_select({axis}, "
    "(torch.arange(x.shape[{axis}]) + step).clamp(0, x.shape[{axis}] - 1)) for step in (-1, 0, 1)])"
)
_NAME_HIDDEN = "or Spacingd takes MONAI Label's image_path for the header of the NIfTI file"
_HIDE_NAME = "$lambda x: x.meta.update(path=x.meta.pop('filename_or_obj', '')) or x"
_SHOW_NAME = "$lambda x: x.meta.update(filename_or_obj=x.meta.pop('path')) or x"
_README = """# {title}

A small network (2.5D: each slice between its neighbours) that was fitted to {scans} scans by
`fsmis_components`, from {labelled} labelled {noun}. It segments scans of the same kind:

```bash
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
  --dataset_dir scans --output_dir masks
```

The masks, `<scan>_seg.nii.gz`, have the values {values}. MONAI Label's own
`monaibundle` app serves this bundle too.

As ONNX (which needs `onnx`), for any number of slices of any height and width that 16 divides:

```bash
python -m monai.bundle onnx_export network_def --filepath student.onnx \
  --ckpt_file models/model.pt --meta_file configs/metadata.json \
  --config_file configs/inference.json --use_trace True --input_shape "[1,3,64,64]" \
  --converter_kwargs "{{'dynamo': False, 'input_names': ['image'], 'output_names': ['pred'], \
  'dynamic_axes': {{'image': {{0: 'batch', 2: 'height', 3: 'width'}}, \
  'pred': {{0: 'batch', 2: 'height', 3: 'width'}}}}}}"
```

Scans must be of the kind it was fitted to: same contrast, same body part, slices cut alike.
{geometry} There is no gate here as in the fitted folder, so look at the masks. It was made from
labels and images of the folder that it was fitted to, whose licence holds for it. Research only:
not for diagnosis or treatment.
"""


def student_definition(make_network: Callable[..., nn.Module], channels: int) -> dict[str, Any]:
    """The student's config, of a component with `_mode_` callable."""
    if not isinstance(make_network, partial):
        raise TypeError(
            "student_definition: expected make_network as functools.partial, as configs give it"
        )
    kind = make_network.func
    target = f"{kind.__module__}.{kind.__qualname__}"
    return {"_target_": target, **make_network.keywords, "out_channels": channels}


def write_student_bundle(
    folder: Path,
    network: nn.Module,
    definition: Mapping[str, Any],
    pack: SupportPack,
    view: SliceView,
    num_scans: int,
    num_labelled: int,
) -> Path | None:
    """Write a bundle for new scans.

    Args:
        folder: receives `configs/`, `models/` and `docs/`.
        network: the student.
        definition: its config, `_target_` and arguments.
        pack: of the teacher, whose structures and intensities are the student's too.
        view: a labelled scan on the student's grid.
        num_scans: scans that it learned from without labels.
        num_labelled: scans that it learned from with labels.

    Returns:
        The folder; None where header spacings are not trusted, which stock transforms cannot do.

    Raises:
        DataError: it cannot be written.
    """
    grid = view.grid
    if grid.spacing is None:
        return None
    structures, normalisation = pack.structures, pack.normalisation
    oblique = grid.directions is not None
    names = ", ".join(f"{each.value} {each.name}" for each in structures)
    geometry = (
        "They must be stored with their axes in the order of the labelled scan, as its slices are "
        "oblique."
        if oblique
        else "Any storage order will do; headers must be right."
    )
    channels = {"0": "background"}
    channels |= {str(number): each.name for number, each in enumerate(structures, 1)}
    with writing(folder):
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_torch(
            {key: value.detach().cpu() for key, value in network.state_dict().items()},
            folder / "models" / "model.pt",
        )
        single = [number for number, each in enumerate(pack_topologies(pack), 1) if each.parts == 1]
        config = _inference(definition, view, normalisation, structures, single)
        _write_json(folder / "configs" / "inference.json", config)
        _write_json(folder / "configs" / "metadata.json", _metadata(channels, normalisation))
        text = _README.format(
            title="A student: " + ", ".join(each.name for each in structures),
            scans=num_scans,
            labelled=num_labelled,
            noun="scan" if num_labelled == 1 else "scans",
            values=names,
            geometry=geometry,
        )
        atomic_write_text(folder / "docs" / "README.md", text)
    return folder


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def _inference(
    definition: Mapping[str, Any],
    view: SliceView,
    normalisation: Normalisation,
    structures: Sequence[Structure],
    single: Sequence[int],
) -> dict[str, Any]:
    values = [0, *(structure.value for structure in structures)]
    through, geometry = _geometry(view)
    preprocessing = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        # before anything is resampled, as the student's own slices were
        *_intensities(normalisation),
        *geometry,
        {
            "_target_": "Lambdad",
            "_desc_": "each slice between its neighbours",
            "keys": "image",
            "func": _NEIGHBOURS.format(axis=through + 1),
            "track_meta": False,
        },
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
    ]
    postprocessing: list[dict[str, Any]] = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "KeepLargestConnectedComponentd",
            "keys": "pred",
            "applied_labels": list(single),
        },
        {
            "_target_": "MapLabelValued",
            "keys": "pred",
            "orig_labels": list(range(len(values))),
            "target_labels": values,
            "dtype": "$numpy.int32",
        },
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "output_dtype": "$numpy.uint8" if max(values) < 256 else "$numpy.int32",
            "resample": False,
            "separate_folder": False,
        },
    ]
    if not single:
        postprocessing = [each for each in postprocessing if "applied_labels" not in each]
    return {
        "imports": ["$import glob", "$import os", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "scans",
        "output_dir": "$@bundle_root + '/eval'",
        "images": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(definition),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @images]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {
            "_target_": "SliceInferer",
            "roi_size": [-1, -1],
            "spatial_dim": through,
            "sw_batch_size": 16,
        },
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _geometry(view: SliceView) -> tuple[int, list[dict[str, Any]]]:
    """The array axis of slices, and transforms after which rows come before columns."""
    grid = view.grid
    through, row, column = view.order.axes
    transforms: list[dict[str, Any]] = []
    if grid.directions is None:
        through = grid.slice_axis
        transforms.append({"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"})
    else:
        flipped = [
            axis for axis, back in zip(view.order.axes, view.order.backwards, strict=True) if back
        ]
        if flipped:
            transforms.append({"_target_": "Flipd", "keys": "image", "spatial_axis": flipped})
    pixels = [grid.spacing, grid.spacing]
    pixels.insert(through, -1)
    hidden = {"_target_": "Lambdad", "keys": "image", "func": _HIDE_NAME, "_desc_": _NAME_HIDDEN}
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": pixels, "mode": "bilinear"}
    transforms += [hidden, spacing, {"_target_": "Lambdad", "keys": "image", "func": _SHOW_NAME}]
    if grid.directions is not None and row > column:
        swapped = [0, 1, 2]
        swapped[row], swapped[column] = column, row
        order = [0, *(axis + 1 for axis in swapped)]
        transforms.append({"_target_": "Transposed", "keys": "image", "indices": order})
    return through, transforms


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


def _metadata(channels: Mapping[str, str], normalisation: Normalisation) -> dict[str, Any]:
    count = len(channels)
    common = {"type": "image", "spatial_shape": ["16*n", "16*n"], "dtype": "float32"}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "fitted to a folder of scans"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.0.0", "pytorch-ignite": "0.4.11"},
        "supported_apps": {"monai-label": "0.8.0"},
        "name": "fitted student",
        "task": "Segmentation of scans of one kind",
        "description": "A 2.5D U-Net that was fitted to a folder of scans from few labels",
        "authors": "made by fsmis_components from the user's scans",
        "copyright": "of the scans and labels that it was fitted to",
        "data_source": "a folder of scans with few labels",
        "data_type": "nibabel",
        "image_classes": "single-channel scan, each slice between its neighbours",
        "label_classes": "",
        "pred_classes": ", ".join(f"{number} {name}" for number, name in channels.items()),
        "intended_use": "Research. Not a medical device: not for diagnosis or treatment",
        "network_data_format": {
            "inputs": {
                "image": {
                    **common,
                    "format": "magnitude",
                    "modality": "CT" if normalisation.modality == "ct" else "MR",
                    "num_channels": 3,
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": "slice before", "1": "slice", "2": "slice after"},
                }
            },
            "outputs": {
                "pred": {
                    **common,
                    "format": "segmentation",
                    "num_channels": count,
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": dict(channels),
                }
            },
        },
    }
