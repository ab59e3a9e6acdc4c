"""Folder runs that are interrupted or killed, and the same run given again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import nibabel
import pytest
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from html_pages import checked_page
from monai.data import Dataset
from run_tables import read_cases

from fsmis_components.inferers import (
    FolderEvaluator,
    VolumeInferer,
    folder_evaluator,
    query_items,
    run_record,
)
from fsmis_components.support import SupportSource

ALL = ["image_2", "image_3", "image_4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Support s, three queries q, and in the folder plain what one run makes of them."""
    write_scan(tmp_path / "s", 1, block_label())
    for number in (2, 3, 4):
        write_scan(tmp_path / "q", number)
    evaluator(tmp_path, "plain").run()
    return tmp_path


def evaluator(folder: Path, output: str = "o") -> FolderEvaluator:
    return FolderEvaluator(
        device="cpu",
        dataset=Dataset(query_items(folder / "q")),
        network=IntensityNetwork(),
        inferer=VolumeInferer(SupportSource(folder / "s", spatial_size=24), uncertainty=True),
        output_dir=folder / output,
        progress=False,
    )


def run(folder: Path) -> None:
    evaluator(folder).run()


def run_and_die_in_the_second_mask(folder: Path) -> None:
    """For a process of its own: it is killed when half of the mask is on disk."""
    save = nibabel.save

    def half_a_mask(image: nibabel.Nifti1Image, path: Path) -> None:
        save(image, path)
        if str(path).endswith("image_3_seg.nii.gz"):
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    nibabel.save = half_a_mask
    run(folder)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def expected_files(names: list[str]) -> list[str]:
    own = [[f"{n}_seg.nii.gz", f"{n}_uncertainty.nii.gz", f"overlays/{n}.png"] for n in names]
    return sorted(["cases.csv", "report.html", "run.json", *sum(own, [])])


def check_complete(output: Path) -> None:
    assert files(output) == expected_files(ALL)
    assert [(row["case"], row["status"]) for row in read_cases(output)] == [
        (name, "done") for name in ALL
    ]
    for name in ALL:
        for kind in ("seg", "uncertainty"):
            file = f"{name}_{kind}.nii.gz"
            assert (output / file).read_bytes() == (output.parent / "plain" / file).read_bytes()
    page = (output / "report.html").read_text(encoding="utf-8")
    assert checked_page(page).addresses == [f"overlays/{name}.png" for name in ALL]


def test_killed_while_a_mask_is_written(folder: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=run_and_die_in_the_second_mask, args=(folder,)
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    output = folder / "o"
    assert [row["case"] for row in read_cases(output)] == ["image_2"]
    # half a mask lies there under a hidden name only, and the lock that nobody holds any more
    hidden = sorted(name for name in files(output) if name.startswith("."))
    assert len(hidden) == 2 and hidden[0].endswith(".image_3_seg.nii.gz")
    assert hidden[1] == ".writing"
    assert not (output / "image_3_seg.nii.gz").exists()
    first = output / "image_2_seg.nii.gz"
    before = first.stat().st_mtime_ns
    run(folder)
    assert first.stat().st_mtime_ns == before
    check_complete(output)


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Ctrl+C counts, also where the tests run in the background of a shell, which ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("keyboard")
def test_interrupted_from_the_keyboard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = nibabel.save

    def save_and_press_keys(image: nibabel.Nifti1Image, path: Path) -> None:
        save(image, path)
        if str(path).endswith("image_3_seg.nii.gz"):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as raised:
        patched.setattr(nibabel, "save", save_and_press_keys)
        run(folder)
    assert raised.value.code == (
        "interrupted with 1 of 3 scans done; give the same command again to go on."
    )
    output = folder / "o"
    # what was written before the mask is written anew; the mask itself is whole or not there
    others = ["image_3_uncertainty.nii.gz", "overlays/image_3.png"]
    assert files(output) == sorted([*expected_files(ALL[:1]), *others])
    assert [row["case"] for row in read_cases(output)] == ["image_2"]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert checked_page(page).addresses == ["overlays/image_2.png"]
    before = (output / "image_2_seg.nii.gz").stat().st_mtime_ns
    run(folder)
    assert (output / "image_2_seg.nii.gz").stat().st_mtime_ns == before
    check_complete(output)


def test_the_bar_counts_what_an_earlier_run_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    class Bar(folder_evaluator.tqdm):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings)
            bars.append((self, self.n, self.total))

    monkeypatch.setattr(folder_evaluator, "tqdm", Bar)
    run(folder)
    (folder / "o" / "image_3_seg.nii.gz").unlink()
    again = evaluator(folder)
    again.progress = True
    again.run()
    bar, before, total = bars[-1]
    assert (before, bar.n, total) == (2, 3, 3)


def test_a_failed_scan_is_tried_again(folder: Path) -> None:
    whole = (folder / "q" / "image_3.nii.gz").read_bytes()
    (folder / "q" / "image_3.nii.gz").write_bytes(whole[:2000])
    with pytest.raises(SystemExit):
        run(folder)
    assert [row["status"] for row in read_cases(folder / "o")] == ["done", "failed", "done"]
    (folder / "q" / "image_3.nii.gz").write_bytes(whole)
    run(folder)
    check_complete(folder / "o")


def test_no_mask_of_a_former_scan_stays_beside_a_failure(folder: Path) -> None:
    run(folder)
    (folder / "q" / "image_3.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(SystemExit):
        run(folder)
    assert files(folder / "o") == expected_files(["image_2", "image_4"])


def test_a_scan_that_is_gone_keeps_its_mask(folder: Path) -> None:
    """A network drive may be away for a moment."""
    run(folder)
    mask = (folder / "o" / "image_3_seg.nii.gz").read_bytes()
    again = evaluator(folder)
    (folder / "q" / "image_3.nii.gz").unlink()
    with pytest.raises(SystemExit) as raised:
        again.run()
    assert "image_3.nii.gz: there is no such file" in str(raised.value.code)
    assert (folder / "o" / "image_3_seg.nii.gz").read_bytes() == mask
    assert read_cases(folder / "o")[1]["status"] == "failed"


def test_a_full_disk_under_the_table_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_record, "atomic_write_text", full)
    with pytest.raises(SystemExit) as raised:
        run(folder)
    message = str(raised.value.code)
    assert "run.json: cannot be written (No space left" in message
    assert message.endswith("free some space and give the same command again.")


def test_names_that_a_spreadsheet_would_compute(folder: Path) -> None:
    """They are shown as text, and masks, record and resume keep the names as they are."""
    queries = folder / "q"
    scans = dict(zip(ALL, ("=1+1", "@x", "-2"), strict=True))
    for stem, name in scans.items():
        (queries / f"{stem}.nii.gz").rename(queries / f"{name}.nii.gz")
    names = {"labels": {"=cmd()": 1, "+b": 2}}
    (folder / "s" / "dataset.json").write_text(json.dumps(names), encoding="utf-8")
    run(folder)
    rows = read_cases(folder / "o")
    # a number is no formula
    assert {row["case"]: row["status"] for row in rows} == {
        "'=1+1": "done",
        "'@x": "done",
        "-2": "done",
    }
    assert {"'=cmd()_ml", "'+b_expected_dice"} <= rows[0].keys()
    masks = [folder / "o" / f"{name}_seg.nii.gz" for name in scans.values()]
    before = [mask.stat().st_mtime_ns for mask in masks]
    run(folder)
    assert [mask.stat().st_mtime_ns for mask in masks] == before
    assert read_cases(folder / "o") == rows
