"""What lies in the output folder of a run is never lost and never stale."""

import errno
import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import folder_runs
import nibabel
import numpy as np
import pytest
import torch
from block_scans import block_image, block_label, write_nifti, write_scan
from fake_network import IntensityNetwork
from folder_results import blank_overlay
from folder_runs import read_cases, sentence

from fsmis_components.data import atomic
from fsmis_components.data.atomic import lock_folder
from fsmis_components.inferers import folder_evaluator

ALL = ["image_2", "image_3", "image_4"]
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def folder(tmp_path: Path, blank_overlays: None) -> Path:
    """Support s, another support t, and three queries q that are not compressed."""
    write_scan(tmp_path / "s", 1, block_label())
    write_scan(tmp_path / "t", 1, block_label({1: 2, 2: 1}))
    for number in (2, 3, 4):
        write_nifti(tmp_path / "q" / f"image_{number}.nii", block_image(seed=number))
    return tmp_path


evaluator = partial(folder_runs.evaluator, inferer={"uncertainty": True})


def results(output: Path) -> dict[str, bytes]:
    """All masks and maps by their names."""
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.nii.gz"))}


def statuses(output: Path) -> list[tuple[str, str]]:
    return [(row["case"], row["status"]) for row in read_cases(output)]


DONE = [(name, "done") for name in ALL]


def die_at_every_moment(folder: Path) -> None:
    """For a process of its own: its n-th child is killed at the n-th file that it completes."""
    torch.set_num_threads(1)
    moment, killed = 0, True
    while killed:
        child = os.fork()
        if child == 0:
            left, replace = moment, os.replace

            def kill(source: object, target: object, replace=replace) -> None:  # type: ignore[no-untyped-def]
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(source, target)  # type: ignore[arg-type]

            atomic.os.replace = kill  # type: ignore[assignment]
            folder_evaluator.save_overlay = blank_overlay  # type: ignore[assignment]
            evaluator(folder, f"killed_{moment}").run()
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        moment += 1


def test_killed_at_any_moment_the_same_command_goes_on(folder: Path) -> None:
    (folder / "q" / "image_4.nii").unlink()  # two scans have all the moments
    evaluator(folder, "plain").run()
    process = multiprocessing.get_context("spawn").Process(
        target=die_at_every_moment, args=(folder,)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    killed = sorted(folder.glob("killed_*"))
    assert len(killed) > 6 * 2
    for output in killed:
        evaluator(folder, output.name).run()
        assert results(output) == results(folder / "plain"), output.name
        assert statuses(output) == DONE[:2]
        hidden = [path.name for path in output.iterdir() if path.name.startswith(".")]
        assert hidden == [".writing"]
        assert not (output / "set_aside").exists()


def test_a_damaged_mask_is_set_aside_and_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator(folder).run()
    whole = results(folder / "o")
    mask = folder / "o" / "image_3_seg.nii.gz"
    content = mask.read_bytes()
    damaged = [bytes(len(content)), content[: len(content) // 2]]
    for broken in damaged:
        mask.write_bytes(broken)
        evaluator(folder).run()
        assert results(folder / "o") == whole
    kept = [folder / "o" / "set_aside" / name for name in (mask.name, f"2_{mask.name}")]
    assert [path.read_bytes() for path in kept] == damaged
    assert "is not as it was written; it is now" in caplog.text


def test_a_mask_of_another_grid_is_damaged_and_a_changed_one_is_kept(folder: Path) -> None:
    evaluator(folder).run()
    masks = [folder / "o" / f"{name}_seg.nii.gz" for name in ALL]
    other = write_nifti(masks[0], block_label()[:-1]).read_bytes()
    person = write_nifti(masks[1], block_label({1: 1})).read_bytes()
    empty = write_nifti(masks[2], np.zeros_like(block_label())).read_bytes()
    (folder / "o" / "overlays" / "image_3.png").unlink()
    network = IntensityNetwork()
    evaluator(folder, network=network).run()
    assert sum(network.encoded) == 2 * 12 + 18  # the support, also mirrored, and one scan
    assert (folder / "o" / "set_aside" / masks[0].name).read_bytes() == other
    np.testing.assert_array_equal(np.asarray(nibabel.load(masks[0]).dataobj), block_label())
    assert masks[1].read_bytes() == person and masks[2].read_bytes() == empty


def test_the_content_of_a_scan_decides_and_not_its_time(folder: Path) -> None:
    evaluator(folder).run()
    scan = folder / "q" / "image_3.nii"
    before = scan.stat()
    write_nifti(scan, np.roll(block_image(seed=3), 1, 0))
    os.utime(scan, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (scan.stat().st_size, scan.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    for untouched in (folder / "q" / "image_2.nii", folder / "q" / "image_4.nii"):
        os.utime(untouched, ns=(1, 1))
    network = IntensityNetwork()
    evaluator(folder, network=network).run()
    assert sum(network.encoded) == 2 * 12 + 18  # the support, also mirrored, and one scan
    mask = nibabel.load(folder / "o" / "image_3_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.roll(block_label(), 1, 0))


def test_two_runs_never_write_into_one_folder(folder: Path) -> None:
    with lock_folder(folder / "o"):
        said = sentence(evaluator(folder, support="t").run)
    assert str(folder / "o") in said and "another run is writing there" in said
    assert not results(folder / "o") and not (folder / "o" / "run.json").exists()
    evaluator(folder).run()
    before = results(folder / "o")
    said = sentence(evaluator(folder, support="t").run)
    assert "another support or other settings (they differ in: support)" in said
    assert results(folder / "o") == before


def test_records_that_are_missing_damaged_or_foreign_are_told_apart(folder: Path) -> None:
    evaluator(folder).run()
    before, record = results(folder / "o"), folder / "o" / "run.json"
    whole = record.read_text()
    for content, said in (
        (None, "no run.json says which run wrote it"),
        ("", "is damaged or no record of a folder run"),
        (whole[: len(whole) // 2], "is damaged or no record of a folder run"),
        ("[" * 100_000, "is damaged or no record of a folder run"),
        ('{"learning_rate": 0.1}', "is damaged or no record of a folder run"),
        (json.dumps({**json.loads(whole), "run_hash": "0"}), "a run with another support"),
    ):
        record.unlink()
        if content is not None:
            record.write_text(content)
        message = sentence(evaluator(folder).run)
        assert said in message and "choose another --output_dir" in message
        assert results(folder / "o") == before
        if content is None:
            record.write_text("")
        else:
            assert record.read_text() == content
    record.write_text(whole)
    evaluator(folder).run()


def test_a_scan_that_is_gone_keeps_its_mask_and_another_one_loses_it(folder: Path) -> None:
    """A network drive may be away for a moment."""
    evaluator(folder).run()
    before = results(folder / "o")
    again = evaluator(folder)
    (folder / "q" / "image_3.nii").unlink()
    assert "image_3.nii: there is no such file" in sentence(again.run)
    assert results(folder / "o") == before
    (folder / "q" / "image_3.nii").write_bytes(b"no NIfTI")
    sentence(evaluator(folder).run)
    assert sorted(results(folder / "o")) == sorted(n for n in before if "image_3" not in n)


class FailsOnOne(IntensityNetwork):
    """Fails for a scan that is brighter than the others."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def encode(self, image: torch.Tensor) -> object:  # type: ignore[override]
        if len(image) == 5:  # of a scan with five slices
            raise self.error
        return super().encode(image)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OverflowError("cannot convert float\ninfinity" + "x" * 10_000), "OverflowError: cannot"),
        (RuntimeError(NO_MEMORY), "too little memory (RuntimeError: "),
        (MemoryError(), "too little memory (MemoryError); close"),
        (PermissionError(errno.EACCES, "Permission denied"), "PermissionError: [Errno 13]"),
    ],
)
def test_whatever_fails_in_a_scan_the_others_go_on(
    folder: Path, error: Exception, said: str
) -> None:
    write_nifti(folder / "q" / "image_3.nii", block_image()[..., 3:8])
    for _ in range(2):  # also when it is run again
        message = sentence(evaluator(folder, network=FailsOnOne(error)).run)
        assert message.startswith("1 of 3 scans failed") and len(message) < 1000
        rows = read_cases(folder / "o")
        assert [row["status"] for row in rows] == ["done", "failed", "done"]
        assert "image_3.nii: " + said in rows[1]["message"]
        assert (folder / "o" / "image_4_seg.nii.gz").is_file()
        assert "image_3" in (folder / "o" / "report.html").read_text()
    log = (folder / "o" / "errors.log").read_text()
    assert log.count("image_3.nii") == 2 and "Traceback" in log
    assert type(error).__name__ in log and "in encode" in log


@pytest.mark.parametrize("moment", [0, 9, 16])
def test_a_disk_that_fills_up_ends_in_one_sentence_and_the_run_goes_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    evaluator(folder, "plain").run()
    left, sync = moment, os.fsync

    def full(descriptor: int) -> None:
        nonlocal left
        left -= os.path.isfile(f"/proc/self/fd/{descriptor}")
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "fsync", full)
        said = sentence(evaluator(folder).run)
    assert "No space left on device" in said and "free some space" in said
    evaluator(folder).run()
    assert results(folder / "o") == results(folder / "plain")
    assert statuses(folder / "o") == DONE
