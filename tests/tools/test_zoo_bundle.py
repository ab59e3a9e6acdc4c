"""What goes to the model zoo is complete, fetches its weights, and its links lead somewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from monai.bundle import download_large_files, verify_metadata

import fsmis_components
from environment import REPOSITORY
from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError
from verify_bundle import SCHEMAS, check_published
from zoo_bundle import zoo_bundle

BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))
PROJECT = "https://example.org/project/blob/v0.2.0"
MEGABYTES = 25  # the zoo's limit of a file


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    for bundle in BUNDLES:
        zoo_bundle(bundle, (folder / "release").as_uri(), PROJECT, folder)
    return folder


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_clone_of_the_zoo_gets_the_whole_bundle(zoo: Path, bundle: Path, tmp_path: Path) -> None:
    root = shutil.copytree(zoo / "models" / bundle.name, tmp_path / bundle.name)
    assert not list(root.rglob("*.pt")) + list(root.rglob("*.py"))
    assert max(path.stat().st_size for path in root.rglob("*.*")) < MEGABYTES * 1e6
    download_large_files(str(root))
    for path in (bundle / "models").iterdir():
        assert (root / "models" / path.name).read_bytes() == path.read_bytes()
    metadata = root / "configs" / "metadata.json"
    schema = SCHEMAS / json.loads(metadata.read_text())["schema"].rsplit("/", 1)[-1]
    verify_metadata(meta_file=str(metadata), filepath=str(schema))
    needed = json.loads(metadata.read_text())["required_packages_version"]
    assert needed["fsmis-components"] == fsmis_components.__version__
    assert not check_published(root)


def test_the_card_tells_the_terms_of_the_weights_and_not_those_of_the_code(zoo: Path) -> None:
    for bundle in BUNDLES:
        _, front, page = (
            (zoo / "huggingface" / bundle.name / "README.md").read_text().split("---\n", 2)
        )
        card = yaml.safe_load(front)
        assert (card["license"], card["library_name"]) == ("other", "monai")
        assert (bundle / card["license_link"]).is_file()
        assert page.strip().startswith("# ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "docs" / "data_license.txt").write_text(""), "data_license.txt"),
        (lambda root: (root / "models" / "model.ts").write_text("TorchScript"), "model.ts"),
        (lambda root: _edit(root, name=""), "name is empty"),
        (lambda root: _edit(root, version="9.9.9"), "changelog"),
        (lambda root: _edit(root, required_packages_version={}), "required_packages_version"),
    ],
)
def test_what_the_zoo_would_refuse_is_said_here(
    change: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(BUNDLES[0], tmp_path / "bundles" / BUNDLES[0].name)
    change(root)
    addresses = ["--release", "https://example.org/r", "--project", PROJECT]
    assert command(zoo_bundle, [str(root), *addresses, "--output", str(tmp_path / "zoo")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()


def test_nothing_is_overwritten_and_an_address_is_one(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is there already"):
        zoo_bundle(BUNDLES[0], "https://example.org/r", PROJECT, zoo)
    with pytest.raises(DataError, match="--release dist"):
        zoo_bundle(BUNDLES[0], "dist", PROJECT, tmp_path)


def _edit(root: Path, **values: object) -> None:
    path = root / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
