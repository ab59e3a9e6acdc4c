"""Packs with one number, name, shape or type changed: refused in words."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_scans import block_image, block_label, write_nifti
from bundle_folders import shipped_network
from fake_network import IntensityNetwork
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.support import SupportPack, SupportSource
from fsmis_components.support.calibration import Calibration, StructureTest
from fsmis_components.support.source import try_pack

KEY = "fsmis_support_pack"
OPTIONAL = ("mirrored", "self_similarity", "tissues")
known_hash = functools.cache(weights_hash)
NAN, INF, HUGE = float("nan"), float("inf"), 10**400
# for every field: values with which nothing can be computed, beside an empty list
UNUSABLE: dict[str, list[Any]] = {
    "format": [1, 3, True],
    "slice_axis": [7, 1.5, HUGE, None],
    "spacing": [0, -1, NAN, HUGE, "7"],
    "spatial_size": [0, 10**6, 256.5, None],
    "modality": ["auto", None],
    "clip_quantile": [1.5, NAN, None],
    "window": [[1], [200, -100], [0, NAN], "ab", None],
    "mean": [NAN, "x", True],
    "std": [0, -1, INF, "x", 2.0],
    "name": ["", " ", "x" * 100_000, None],
    "value": [0, 1.5, 2**40, HUGE, NAN, "7"],
    "colour": ["", "red", "#12345g", None],
    "slice_spacing": [0, NAN, "x", True],
    "method": ["", None],
    "version": ["", None],
    "weights_hash": ["x" * 64, "0" * 63, None],
    "settings": [7, None],
    "calibration": [7, {}, {"tests": 7}, {"tests": [7]}],
    "tests": [-1, 1.5, NAN, None],
    "spread": [-0.1, NAN, HUGE, None],
    "held_out": ["x", None],
    "structures": [{}, None, [7]],
    "scans": [{}, None, [7]],
    "grid": [{}, 7, None],
    "normalisation": [{}, 7, None],
}


def metadata(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        return json.loads(json.loads(file.read(length))["__metadata__"][KEY])


def rewrite(source: Path, target: Path, content: Any) -> Path:
    """Write a pack with other metadata; a text is taken as it is."""
    blob = source.read_bytes()
    [length] = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    header["__metadata__"][KEY] = content if isinstance(content, str) else json.dumps(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + length :])
    return target


def fields(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in the metadata; of a list its first and last entry stand for all."""
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from fields(value, (*path, key))
    elif isinstance(node, list):
        for index in sorted({0, len(node) - 1} if node else set()):
            yield from fields(node[index], (*path, index))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    result = json.loads(json.dumps(content))
    *way, last = path
    holder = result
    for key in way:
        holder = holder[key]
    holder[last] = value
    return result


def assert_refused(path: Path, what: object, network: nn.Module | None = None) -> None:
    with pytest.raises(DataError) as raised:
        pack = SupportPack.load(path)
        if network is not None:
            pack.check_fits(network, known_hash(network))
            try_pack(pack, network)
        pytest.fail(f"{what} was taken")
    said = str(raised.value)
    assert said.startswith(f"{path}: ") and "--support_dir" in said and len(said) < 1000, what


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pack of three planes, for what does not depend on the network."""
    folder, isotropic = tmp_path_factory.mktemp("small"), np.diag([1.5, 1.5, 1.5, 1.0])
    write_nifti(folder / "s" / "image_1.nii.gz", block_image(), isotropic)
    write_nifti(folder / "s" / "label_1.nii.gz", block_label(), isotropic)
    tested = Calibration((StructureTest(0.9, 0.1, 2, "slices"),) * 2)
    path = folder / "pack.safetensors"
    source = SupportSource(folder / "s", save_support_pack=path, spatial_size=24, self_test=True)
    source.resolve(IntensityNetwork(), lambda *_: tested)
    return path


def test_numbers_and_names_that_cannot_be(small: Path, tmp_path: Path) -> None:
    content = metadata(small)
    # what is inside the settings is the method's own: its network refuses another
    places = [p for p in fields(content) if p[-1] in UNUSABLE and p[:-1] != ("settings",)]
    seen = {path[-1] for path in places}
    assert seen == set(UNUSABLE), "a field is not tried"
    for path in places:
        for value in [[], *UNUSABLE[path[-1]]]:
            target = rewrite(small, tmp_path / "p.safetensors", changed(content, path, value))
            assert_refused(target, (path, value))


def test_metadata_of_another_form_and_structures_that_are_not_told_apart(
    small: Path, tmp_path: Path
) -> None:
    content = metadata(small)
    first, second = content["structures"][:2]
    twins = [{"name": first["name"]}, {"name": first["name"].upper()}, {"value": 1}]
    forms = [changed(content, ("structures", 1), {**second, **change}) for change in twins]
    many = [{**first, "name": f"s{i}", "value": i + 1} for i in range(4000)]
    forms += [{**content, "structures": many}, "", "{", "null", "[]", '{"a": ' + "[" * 100_000]
    for form in [*forms, '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"]:
        assert_refused(rewrite(small, tmp_path / "p.safetensors", form), str(form)[:99])


def damaged(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor | None]]:
    """A tensor in every form in which no network has it."""
    yield "absent", None
    yield "another axis", tensor[None]
    yield "flat", tensor.flatten()
    yield "empty", tensor[:0]
    yield "doubled", tensor.repeat(2, *[1] * (tensor.ndim - 1))
    for axis, length in enumerate(tensor.shape):
        # scans are of any size, so that shapes may have any number of cells
        if length > 2 and not (name.endswith("shapes") and axis > 1):
            yield f"cut along axis {axis}", tensor.narrow(axis, 0, length - 1)
    others = {torch.float32: torch.float16, torch.float16: torch.float32, torch.bool: torch.uint8}
    yield "another type", tensor.to(others.get(tensor.dtype, torch.float64))
    if tensor.is_floating_point():
        for value in (NAN, INF):
            broken = tensor.clone()
            broken.view(-1)[0] = value
            yield str(value), broken
    if name == "origins":
        for value in (-1, 10**6):
            for axis in (0, 1):
                broken = tensor.clone()
                broken[0, axis] = value
                yield f"{value} in column {axis}", broken
    if name in ("sections", "state.valid"):
        yield "nothing labelled", torch.zeros_like(tensor)
    if name.endswith("extents"):
        yield "reversed", tensor.flip(1)
        yield "far outside", tensor + 1e6
        yield "nowhere", torch.full_like(tensor, NAN)


def assert_each_damage_is_refused(pack: Path, folder: Path, network: nn.Module, kind: str) -> None:
    tensors, facts = load_file(pack), {KEY: json.dumps(metadata(pack))}
    path = folder / "p.safetensors"
    for name in [name for name in tensors if name.startswith(kind)]:
        for what, other in damaged(name, tensors[name]):
            if other is None and name.split(".")[-1] in OPTIONAL:
                continue  # packs of version 0.1 have none
            if name == "state.background_global" and what.startswith("cut"):
                continue  # which is read only where no cell is pure background
            others = {**tensors, name: other}
            kept = {k: v.contiguous() for k, v in others.items() if v is not None}
            save_file(kept, path, facts)
            assert_refused(path, (name, what), network)


@pytest.mark.parametrize("kind", ["scan", "sections", "origins"])
def test_tensors_that_do_not_fit(small: Path, tmp_path: Path, kind: str) -> None:
    assert_each_damage_is_refused(small, tmp_path, IntensityNetwork(), kind)


@pytest.mark.slow
def test_the_state_of_another_network(bundle: Path, tmp_path: Path) -> None:
    shipped = bundle / "models" / "support_pack.safetensors"
    assert_each_damage_is_refused(shipped, tmp_path, shipped_network(bundle), "state.")
