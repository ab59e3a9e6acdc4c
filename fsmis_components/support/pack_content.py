"""What must hold of a support pack's content before anything is computed with it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from fsmis_components.encoding.slice_descriptors import CELLS
from fsmis_components.layers.support_state import check_state
from fsmis_components.support.calibration import HeldOut
from fsmis_components.support.scan_profile import ScanProfile, mirror_places
from fsmis_components.support.self_similarity import CHANNELS, EDGES

if TYPE_CHECKING:
    from fsmis_components.support.support_pack import SupportPack

MOST_STRUCTURES = 500  # whole-body label sets have some hundred
_LARGEST_VALUE = 2**31 - 1  # masks are written as int32 at most
_LONGEST_NAME = 1000
_LARGEST_SIZE = 4096  # pixels along the side of a slice


def check_content(pack: SupportPack) -> None:
    """Check numbers, names and tensors of a pack, and that they fit each other.

    Raises:
        ValueError: the first thing that is wrong, in words.
        TypeError: a value or a tensor has another type.
    """
    _check_structures(pack)
    _check_rules(pack)
    check_state(pack.state)
    n, s = pack.state["valid"].shape[1:]
    _require(n == len(pack.structures), "the state has another number of structures")
    for name, tensor in pack.state.items():
        _require(tensor.shape[0] == 1, f"state.{name} belongs to several supports")
        plain = tensor.dtype in (torch.float32, torch.bool, torch.int64)
        _require(plain and tensor.numel() > 0, f"state.{name}, empty or of {tensor.dtype}")
        _check_finite(f"state.{name}", tensor)
    _check_tensor("sections", pack.sections, torch.bool, (n, s, 3))
    _check_tensor("origins", pack.origins, torch.int64, (s, 2))
    _require(len(pack.profiles) > 0, "it has no scan")
    features = pack.profiles[0].descriptors.shape[1:]
    for index, profile in enumerate(pack.profiles):
        _check_profile(f"scan.{index}", profile, n, features)
    depths = torch.tensor([profile.depth for profile in pack.profiles])
    scan, place = pack.origins.unbind(1)
    _require(bool(((scan >= 0) & (scan < len(depths))).all()), "origins name scans that are absent")
    inside = (place >= 0) & (place < depths[scan])
    _require(bool(inside.all()), "origins name slices that are absent")
    serves = pack.sections.any(-1)
    _require(bool(serves.any(1).all()), "a structure has no labelled slice")
    _require(torch.equal(pack.state["valid"][0], serves), "state.valid and sections differ")
    known = torch.stack([profile.extents[:, 0].isfinite() for profile in pack.profiles])[scan].T
    _require(torch.equal(known | serves, known), "a labelled slice has no extent")
    _require(len(pack.planes) <= 2, "more planes than a volume has")
    for plane in pack.planes:
        _require(not plane.planes, "planes of planes")
        check_content(plane)
        _require(plane.profiles[0].descriptors.shape[1:] == features, "planes of other features")


def _check_structures(pack: SupportPack) -> None:
    count = len(pack.structures)
    _require(0 < count <= MOST_STRUCTURES, f"{count} structures, 1 to {MOST_STRUCTURES} are usual")
    for structure in pack.structures:
        value, colour = structure.value, structure.colour
        _check_name("a structure", structure.name)
        _require(type(value) is int and 0 < value <= _LARGEST_VALUE, f"label value {value!r}")
        rgb = isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour)
        _require(bool(rgb), f"colour {colour!r}, not #rrggbb")
    for key in ("column", "value"):
        values = {getattr(structure, key) for structure in pack.structures}
        _require(len(values) == count, f"two structures share a {key}")
    if pack.calibration is None:
        return
    tests = pack.calibration.tests
    _require(len(tests) == count, "calibration of another number of structures")
    for test in tests:
        figures = (test.spread if test.mean is None else test.mean, test.spread)
        _require(all(_number(f) and 0 <= f <= 1 for f in figures), "expected Dice, not 0 to 1")
        _require(type(test.tests) is int and test.tests >= 0, "number of tests")
        _require(test.held_out in get_args(HeldOut), f"held_out {test.held_out!r}")


def _check_rules(pack: SupportPack) -> None:
    grid, rule, size = pack.grid, pack.normalisation, pack.grid.spatial_size
    lower, upper = rule.window
    digest = isinstance(pack.weights_hash, str) and re.fullmatch("[0-9a-f]{64}", pack.weights_hash)
    sound = {
        "slice_axis": _axis(grid.slice_axis),
        "thick": grid.thick is None or _axis(grid.thick),
        "spacing": grid.spacing is None or _number(grid.spacing, above=0),
        "spatial_size": type(size) is int and 8 <= size <= _LARGEST_SIZE,
        "directions": grid.directions is None or _frame(grid.directions),
        "clip_quantile": _number(rule.clip_quantile, above=0) and rule.clip_quantile <= 1,
        "window": _number(lower) and _number(upper, above=lower),
        "weights_hash": bool(digest),
        "settings": isinstance(pack.settings, dict),
    }
    for name, holds in sound.items():
        _require(holds, f"{name} is out of range")
    _check_name("method", pack.method)
    _check_name("version", pack.version)


def _check_profile(title: str, profile: ScanProfile, n: int, features: Sequence[int]) -> None:
    _check_name(title, profile.name)
    spacing, z = profile.slice_spacing, profile.depth
    _require(spacing is None or _number(spacing, above=0), f"{title}: slice_spacing, not above 0")
    _require(type(profile.oriented) is bool, f"{title}: oriented, neither true nor false")
    _require(profile.descriptors.ndim == 2 and z > 0, f"{title}.descriptors, not (Z, F)")
    cells = profile.shapes.shape[2:]
    known = len(cells) == 2 and 0 < min(cells) <= max(cells) <= _LARGEST_SIZE
    _require(known, f"{title}.shapes of {tuple(cells)} cells")
    wanted = {
        "descriptors": (torch.float16, (z, *features)),
        "shapes": (torch.uint8, (n, z, *cells)),
        "extents": (torch.float32, (n, 2)),
        "mirrored": (torch.float16, (3, len(mirror_places(z)), *features)),
        "self_similarity": (torch.uint8, (z, CHANNELS, *cells)),
        "tissues": (torch.float16, (z, len(EDGES) * CELLS * CELLS)),
    }
    for name, tensor in profile.tensors().items():
        _check_tensor(f"{title}.{name}", tensor, *wanted[name], finite=name != "extents")
    absent = profile.extents.isnan().all(1)
    first, last = profile.extents.unbind(1)
    within = (first < last) & (first >= -z) & (last <= 2 * z)
    _require(bool((absent | within).all()), f"{title}.extents, outside the scan")


def _check_tensor(
    title: str, tensor: Tensor, dtype: torch.dtype, shape: Sequence[int], finite: bool = True
) -> None:
    _require(tensor.dtype == dtype, f"{title} of {tensor.dtype}, not {dtype}")
    found, wanted = tuple(tensor.shape), tuple(shape)
    _require(found == wanted, f"{title} of shape {found}, where the rest wants {wanted}")
    if finite:
        _check_finite(title, tensor)


def _check_finite(title: str, tensor: Tensor) -> None:
    if tensor.is_floating_point():
        _require(bool(tensor.isfinite().all()), f"{title} holds NaN or infinity")


def _check_name(title: str, name: Any) -> None:
    sound = isinstance(name, str) and len(name.strip()) > 0 and len(name) <= _LONGEST_NAME
    _require(sound, f"{title}: a name of 1 to {_LONGEST_NAME} characters")


def _number(value: Any, above: float = -math.inf) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > above


def _axis(value: Any) -> bool:
    return type(value) is int and value in (0, 1, 2)


def _frame(directions: Sequence[Any]) -> bool:
    """Whether these are three unit vectors that span space; a tilted gantry shears them."""
    frame = torch.tensor(directions, dtype=torch.float64)
    if frame.shape != (3, 3) or not frame.isfinite().all():
        return False
    unit = bool(((frame.norm(dim=1) - 1).abs() < 1e-3).all())
    return unit and float(torch.linalg.det(frame).abs()) > 0.1


def _require(holds: bool, wrong: str) -> None:
    if not holds:
        raise ValueError(wrong)
