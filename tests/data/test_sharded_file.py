import json
import math
import os
from pathlib import Path

import pytest
import torch

from fsmis_components.data import sharded_file
from fsmis_components.data.errors import DataError
from fsmis_components.data.sharded_file import has_sharded, load_sharded, save_sharded

SHARD = 4096


def state(value: float) -> dict[str, object]:
    return {"network": {"a": torch.full((31, 100), value)}, "epoch": int(value), "note": [None]}


def assert_is(loaded: dict, value: float) -> None:
    assert loaded.keys() == state(value).keys()
    assert torch.equal(loaded["network"]["a"], torch.full((31, 100), value))
    assert loaded["epoch"] == int(value) and loaded["note"] == [None]


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*part-*"))


def test_parts_are_of_the_size_asked_for_and_named_in_the_index(tmp_path: Path):
    folder = save_sharded(state(2), tmp_path / "state", SHARD)
    index = json.loads((folder / "index.json").read_text())
    sizes = [path.stat().st_size for path in parts(folder)]
    assert index["bytes"] == sum(sizes) > 31 * 100 * 4
    assert len(sizes) == math.ceil(index["bytes"] / SHARD) > 3
    assert sizes[:-1] == [SHARD] * (len(sizes) - 1) and 0 < sizes[-1] <= SHARD
    assert [part["name"] for part in index["parts"]] == [path.name for path in parts(folder)]
    assert parts(folder)[3].name.endswith("-003")
    assert_is(load_sharded(folder), 2)


def test_a_small_state_has_one_part(tmp_path: Path):
    folder = save_sharded(state(1), tmp_path)
    assert len(parts(folder)) == 1
    assert_is(load_sharded(folder), 1)


def test_the_former_parts_are_removed_and_other_files_kept(tmp_path: Path):
    (tmp_path / "part-of-my-notes").write_text("mine")
    save_sharded(state(1), tmp_path, SHARD)
    former = parts(tmp_path)
    killed = tmp_path / f".0123456789ab.{former[0].name}"
    killed.write_bytes(b"half")
    save_sharded(state(2), tmp_path, 2 * SHARD)
    assert not any(path.exists() for path in former if path.name != "part-of-my-notes")
    assert not killed.exists()
    assert (tmp_path / "part-of-my-notes").read_text() == "mine"
    size = json.loads((tmp_path / "index.json").read_text())["bytes"]
    assert len(list(tmp_path.glob("part-*-0*"))) == math.ceil(size / (2 * SHARD))
    assert_is(load_sharded(tmp_path), 2)


def test_an_interruption_anywhere_leaves_one_whole_state(tmp_path: Path, monkeypatch):
    """Every step that touches the disk is interrupted once, in a folder that holds a state."""
    steps: list[str] = []
    stop_at = -1

    def interrupting(name: str, real):
        def step(*args, **kwargs):
            steps.append(name)
            if len(steps) - 1 == stop_at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return step

    monkeypatch.setattr(Path, "write_bytes", interrupting("write", Path.write_bytes))
    monkeypatch.setattr(Path, "write_text", interrupting("write", Path.write_text))
    monkeypatch.setattr(os, "replace", interrupting("replace", os.replace))
    monkeypatch.setattr(Path, "unlink", interrupting("unlink", Path.unlink))
    num_parts = len(parts(save_sharded(state(1), tmp_path / "count", SHARD)))
    steps.clear()
    save_sharded(state(2), tmp_path / "count", SHARD)
    count = len(steps)
    index_in_place = len(steps) - 1 - steps[::-1].index("replace")
    # write, rename and tidy up each part and the index; then remove the former parts
    assert count == 3 * (num_parts + 1) + num_parts
    found = []
    for number in range(count):
        folder = tmp_path / str(number)
        stop_at = -1
        save_sharded(state(1), folder, SHARD)
        steps.clear()
        stop_at = number
        with pytest.raises(KeyboardInterrupt):
            save_sharded(state(2), folder, SHARD)
        stop_at = -1
        loaded = load_sharded(folder)
        assert_is(loaded, loaded["epoch"])
        found.append(loaded["epoch"])
        assert_is(load_sharded(save_sharded(state(3), folder, SHARD)), 3)
        assert len(parts(folder)) == num_parts
    assert found == [1] * (index_in_place + 1) + [2] * (count - index_in_place - 1)


def test_an_interrupted_first_write_leaves_no_state(tmp_path: Path, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharded_file, "atomic_write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_sharded(state(1), tmp_path, SHARD)
    assert parts(tmp_path) and not has_sharded(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda part: part.unlink(), "this part of the state is missing"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1]), "4095 bytes in place of 4096"),
        (lambda part: part.write_bytes(bytes(4096)), "is damaged"),
    ],
)
def test_a_damaged_part_is_named(tmp_path: Path, damage, said: str):
    folder = save_sharded(state(1), tmp_path / "state", SHARD)
    damage(parts(folder)[1])
    with pytest.raises(DataError, match=said) as caught:
        load_sharded(folder)
    assert parts(save_sharded(state(1), tmp_path / "whole", SHARD))[1].name in str(caught.value)
    assert "copy the folder again" in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: index.update(format=2), "of format 1"),
        (lambda index: index["parts"][0].update(name="../secret"), "no index of a state"),
        (lambda index: index["parts"].pop(), "together are not the state"),
        (lambda index: index.pop("parts"), "no index of a state"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, change, said: str):
    save_sharded(state(1), tmp_path, SHARD)
    path = tmp_path / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=said):
        load_sharded(tmp_path)


def test_no_index(tmp_path: Path):
    assert not has_sharded(tmp_path)
    with pytest.raises(DataError, match=r"index.json: cannot be read"):
        load_sharded(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match="no index of a state"):
        load_sharded(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written .*; choose another"):
        save_sharded(state(1), tmp_path / "file" / "state")
