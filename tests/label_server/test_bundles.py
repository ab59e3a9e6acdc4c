from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from fsmis_components.data.errors import DataError
from fsmis_components.label_server.app import find_bundles
from fsmis_components.label_server.rules import address_names


def make_bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text("{}")
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "apps" / "few_shot"
    folder.mkdir(parents=True)
    return folder


def test_names_are_found_in_the_app_and_in_the_repository(app: Path, tmp_path: Path) -> None:
    own = make_bundle(app / "model" / "cow")
    make_bundle(tmp_path / "bundles" / "cow")
    shared = make_bundle(tmp_path / "bundles" / "ipsnet")
    assert find_bundles(app, "cow, ipsnet") == {"cow": own, "ipsnet": shared}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("ssl", "there is no bundle ssl, neither as a folder nor in"),
        (" , ", "expected at least one bundle, got none"),
        ("cow,{other}/cow", "two bundles are called cow"),
    ],
)
def test_refusals(app: Path, tmp_path: Path, models: str, message: str) -> None:
    make_bundle(app / "model" / "cow")
    make_bundle(tmp_path / "other" / "cow")
    with pytest.raises(DataError, match=message):
        find_bundles(app, models.format(other=tmp_path / "other"))


def test_addresses_of_structures_are_safe_and_differ() -> None:
    assert address_names(["Left kidney", "left_kidney", "Läsion 2", "?!"]) == {
        "left_kidney": "Left kidney",
        "left_kidney_2": "left_kidney",
        "l_sion_2": "Läsion 2",
        "structure": "?!",
    }
