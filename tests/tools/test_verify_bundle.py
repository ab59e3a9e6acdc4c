from __future__ import annotations

import shutil
import stat
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_bundle import edit, toy_configs

import bundle_checks
from bundle_checks import CHECKS, Bundle, verify
from fsmis_components.data.errors import DataError
from verify_bundle import main, unpack, verify_archive

LINK = (stat.S_IFLNK | 0o777) << 16


def titles(root: Path, static: bool = True) -> list[str]:
    lines: list[str] = []
    verify(root, lines.append, static=static)
    return [line.strip().partition(":")[0] for line in lines]


def test_a_good_bundle_of_others_passes_every_check_that_is_for_it(toy: Path) -> None:
    lines: list[str] = []
    assert verify(toy, lines.append), lines
    assert all(": ok" in line for line in lines)
    assert len(lines) == sum(not ours for *_, ours in CHECKS)
    assert titles(toy) == [title for title, _, runs, ours in CHECKS if not runs and not ours]


def test_a_bundle_in_yaml_as_folder_and_archive(toy: Path, tmp_path: Path) -> None:
    for name in ("train", "inference"):
        (toy / "configs" / f"{name}.json").unlink()
    text = yaml.safe_dump(toy_configs()["inference"])
    (toy / "configs" / "inference.yaml").write_text(text)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", toy.parent, toy.name)
    for place in (toy, Path(archive)):
        assert main([str(place), "--static"]) == 0


def test_a_bad_bundle_gets_one_line_per_problem(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "LICENSE").unlink()
    (toy / "configs" / "metadata.json").write_text("{")
    assert main([str(toy), "--static"]) == 1
    said = capsys.readouterr()
    assert "files: LICENSE is missing: add it" in said.out
    assert "JSONDecodeError" in said.out and "Traceback" not in said.out + said.err
    assert said.err.count("\n") == 1
    assert main([str(toy / "nowhere")]) == 1
    assert "there is no folder or archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("check", "config", "change", "said"),
    [
        ("check_schema", "metadata", lambda c: c.pop("version"), "version"),
        ("check_schema", "metadata", lambda c: c.pop("network_data_format"), "network_data"),
        ("check_schema", "metadata", lambda c: c.update(schema="a/other.json"), "'other.json'"),
        (
            "check_network",
            "inference",
            lambda c: c["network_def"].update(out_channels=3),
            "output channel number",
        ),
        ("check_weights", "inference", lambda c: c["network_def"].update(out_channels=3), "size"),
    ],
)
def test_each_fault_is_found(toy: Path, check: str, config: str, change: Any, said: str) -> None:
    ask = getattr(bundle_checks, check)
    assert not bundle_checks.asked(ask, Bundle(toy))
    assert said in " ".join(bundle_checks.asked(ask, edit(toy, config, change)))


def test_a_missing_property_is_named(toy: Path) -> None:
    bundle = edit(toy, "train", lambda c: c["train"].pop("inferer"))
    ask = partial(bundle_checks.check_workflow, kind="train")
    assert "train_inferer" in " ".join(bundle_checks.asked(ask, bundle))


def _archive(path: Path, *names: str, attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("toy/LICENSE", *names):
            member = zipfile.ZipInfo(name)
            member.filename = name  # as it is, also where zipfile would mend it
            member.external_attr = attributes if name in names else 0
            archive.writestr(member, b"permission is granted")
    return path


@pytest.mark.parametrize(
    ("names", "attributes", "said"),
    [
        (["../escaped"], 0, "leaves its folder"),
        (["toy/../../escaped"], 0, "leaves its folder"),
        (["/escaped"], 0, "leaves its folder"),
        (["C:\\escaped"], 0, "leaves its folder"),
        (["toy/link"], LINK, "is a link"),
        (["other/file"], 0, "one folder"),
    ],
)
def test_a_wicked_archive_is_not_unpacked(
    names: list[str], attributes: int, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = _archive(folder / "toy.zip", *names, attributes=attributes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=said):
        verify_archive(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    path = _archive(tmp_path / "toy.zip")
    whole = path.read_bytes()
    for number, damaged in enumerate(
        (whole[: len(whole) // 2], b"a text", whole.replace(b"is granted", b"is refused"))
    ):
        path.write_bytes(damaged)
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(DataError, match="no readable zip archive"):
            unpack(path, place)
    path.write_bytes(whole)
    place = tmp_path / "whole"
    place.mkdir()
    assert unpack(path, place) == place / "toy"
    assert (place / "toy" / "LICENSE").read_bytes() == b"permission is granted"
