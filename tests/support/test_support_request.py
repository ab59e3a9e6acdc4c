from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_scans import block_image, block_label, write_nifti, write_scan
from fake_network import IntensityNetwork
from label_studies import submit, write_volume

from fsmis_components.data.errors import DataError
from fsmis_components.label_server.studies import labelled_volumes
from fsmis_components.support import SupportSource
from fsmis_components.support.support_request import (
    LabelledVolume,
    SupportRequest,
    common_structures,
)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for seed, id in enumerate(("a", "b", "c")):
        write_volume(tmp_path, id, seed)
    submit(tmp_path, "a", ts=1)
    submit(tmp_path, "b", block_label({1: 2, 2: 1}), {2: "liver", 1: "spleen"}, ts=2)
    return tmp_path


def request(studies: Path, **more: object) -> SupportRequest:
    return SupportRequest("datastore", tuple(labelled_volumes(studies)), **more)  # type: ignore[arg-type]


def test_each_volume_is_encoded_once(studies: Path) -> None:
    network, source = IntensityNetwork(), SupportSource(spatial_size=24)
    answer = source.resolve_request(network, request(studies))
    assert [profile.name for profile in answer.pack.profiles] == ["a", "b"]
    assert answer.source == "datastore" and answer.notes == ()
    # the second volume calls them otherwise and numbers them the other way round
    assert [(each.name, each.value) for each in answer.pack.structures] == [
        ("Liver", 1),
        ("Spleen", 2),
    ]
    foreground = answer.pack.state["foreground"][0, :, :, 0]
    liver = foreground[0][answer.pack.sections[0].any(-1)]
    assert (foreground[1][answer.pack.sections[1].any(-1)].min() > liver.max()).item()
    assert sum(network.encoded) == 24
    assert source.resolve_request(network, request(studies)).pack is answer.pack
    submit(studies, "c", ts=3)
    joined = source.resolve_request(network, request(studies)).pack
    assert len(joined.profiles) == 3 and sum(network.encoded) == 36


def test_structures_and_numbers_cost_no_encoding(studies: Path) -> None:
    network, source = IntensityNetwork(), SupportSource(spatial_size=24)
    source.resolve_request(network, request(studies))
    asked = request(studies, structures=("Spleen",), number_structures=True)
    pack = source.resolve_request(network, asked).pack
    assert [(each.name, each.value) for each in pack.structures] == [("Spleen", 1)]
    assert sum(network.encoded) == 24
    with pytest.raises(DataError, match="'gut', which is not among Liver, Spleen"):
        source.resolve_request(network, request(studies, structures=("gut",)))


def test_of_each_structure_the_volumes_labelled_last_serve(studies: Path) -> None:
    network, source = IntensityNetwork(), SupportSource(spatial_size=24)
    submit(studies, "c", block_label({1: 1}), {1: "liver"}, ts=3)

    def scans(**more: object) -> list[str]:
        answer = source.resolve_request(network, request(studies, num_shots=1, **more))
        return [profile.name for profile in answer.pack.profiles]

    assert scans() == ["b", "c"]
    assert scans(structures="liver") == ["c"]
    assert scans(structures="spleen") == ["b"]
    assert sum(network.encoded) == 24  # none again for another choice, the oldest not at all


def test_a_volume_that_cannot_serve_is_named(studies: Path) -> None:
    network, source = IntensityNetwork(), SupportSource(spatial_size=24)
    submit(studies, "b", block_label() * 0, ts=2)
    answer = source.resolve_request(network, request(studies))
    assert [profile.name for profile in answer.pack.profiles] == ["a"]
    assert len(answer.notes) == 1 and "b.nii.gz: the label is empty" in answer.notes[0]
    submit(studies, "a", block_label()[1:], ts=1)
    with pytest.raises(DataError, match="^no labelled volume can serve: .*shapes d.*; .*empty"):
        source.resolve_request(network, request(studies))


def test_without_volumes_the_bundle_answers(tmp_path: Path) -> None:
    network = IntensityNetwork()
    write_scan(tmp_path / "s", 1, block_label({1: 3, 2: 5}))
    path = tmp_path / "pack.safetensors"
    SupportSource(tmp_path / "s", save_support_pack=path, spatial_size=24).resolve(network)
    asked = SupportRequest("bundle", (), ["structure_5"], None, True, ("a is alone.",))
    answer = SupportSource(default_pack=path).resolve_request(network, asked)
    assert (answer.source, answer.notes) == ("default pack", ("a is alone.",))
    assert [(each.name, each.value) for each in answer.pack.structures] == [("structure_5", 1)]
    other = IntensityNetwork(window=9)
    absent = SupportRequest("bundle", (), ["gut"], None, True, ("a is alone.",))
    with pytest.raises(DataError, match="^a is alone, and .* 'gut', which is not among"):
        SupportSource(default_pack=path).resolve_request(network, absent)
    for source in (SupportSource(default_pack=path), SupportSource()):
        with pytest.raises(DataError, match="^a is alone, and the bundle's own support cannot"):
            source.resolve_request(other, asked)
    with pytest.raises(DataError, match="no volume is labelled, .* submit its label"):
        SupportSource().resolve_request(network, SupportRequest("bundle"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "case.nii.gz", block_image())


def volume(image: Path, label: np.ndarray, names: dict[int, str] | None = None) -> LabelledVolume:
    path = write_nifti(image.parent / "label" / "case.nii.gz", label)
    return LabelledVolume.of("case", image, path, names)


@pytest.mark.parametrize(
    ("label", "names", "words"),
    [
        (block_label({1: 1}) * 0, {1: "liver"}, r"label is empty .* label a structure\."),
        (block_label({1: 1, 2: 2}), {1: "liver"}, r"label value 2 has no name .* 1 \(liver\)"),
        (block_label({1: 1}), {1: " "}, "label value 1 has no name"),
        (block_label({1: 1, 2: 2}), {1: "Liver", 2: "liver "}, "1 and 2 are both called liver"),
        (block_label()[:-1], {}, r"shapes differ, \(23, 20, 12\) against \(24, 20, 12\)"),
    ],
)
def test_what_cannot_serve(image: Path, label: np.ndarray, names: dict, words: str) -> None:
    labelled = volume(image, label, names)
    with pytest.raises(DataError, match=words) as raised:
        labelled.values()
    assert str(image.parent) in str(raised.value)


def test_a_file_that_changes_is_another_volume(image: Path) -> None:
    labelled = volume(image, block_label())
    before = labelled.key
    again = volume(image, block_label({1: 1}))
    assert again.key != before
    with pytest.raises(DataError, match="was changed while it was read"):
        labelled.load()
    image.unlink()
    with pytest.raises(DataError, match="no such file"):
        LabelledVolume.of("case", image, labelled.label)


def test_names_decide_what_values_mean() -> None:
    first = LabelledVolume("x", "i", "l", {1: "liver", 2: "spleen"})
    second = LabelledVolume("x", "i", "l", {1: "Spleen", 2: "gut", 5: "liver"})
    names, values = common_structures({first: (1, 2), second: (1, 2, 5)})
    # the gut's own value is the spleen's already
    assert names == {1: "liver", 2: "spleen", 3: "gut"}
    assert values == [{1: 1, 2: 2}, {1: 2, 2: 3, 5: 1}]
