"""A folder run that two processes share: what one would write, once, also after one was killed."""

import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

import folder_runs
import torch
from block_scans import block_label, write_scan
from folder_results import blank_overlay, record, results
from folder_runs import read_cases, sentence
from torch import multiprocessing

from fsmis_components.data.processes import join_processes, process_rank
from fsmis_components.inferers import folder_evaluator

SCANS = [f"image_{number}" for number in range(2, 7)]
BROKEN, DEADLY = SCANS[1], SCANS[3]  # the first two of the second process
evaluator = partial(folder_runs.evaluator, inferer={"uncertainty": True})


def share(rank: int, port: int, root: Path, sentences: Any, deadly: bool) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    folder_evaluator.save_overlay = blank_overlay  # type: ignore[assignment]
    group = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in group.items()}
    join_processes()

    def kill(data: dict[str, Any]) -> dict[str, Any]:
        if deadly and DEADLY in data["image"]:
            assert process_rank() == 1
            os.kill(os.getpid(), signal.SIGKILL)
        return data

    try:
        evaluator(root, "shared", postprocessing=kill).run()
    except SystemExit as error:
        sentences.put(str(error))


def in_two_processes(root: Path, deadly: bool = False) -> tuple[list[int], list[str]]:
    """Exit codes, and the sentences by which processes ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    # imports are most of what a process costs
    context.set_forkserver_preload(["fsmis_components.inferers", "fsmis_components.support"])
    sentences = context.SimpleQueue()
    started = [
        context.Process(target=share, args=(rank, port, root, sentences, deadly))
        for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    said = []
    while not sentences.empty():
        said.append(sentences.get())
    return [process.exitcode for process in started], said


def test_a_killed_process_ends_the_run_and_two_others_finish_it(
    tmp_path: Path, blank_overlays: None
) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    for name in SCANS:
        write_scan(tmp_path / "q", int(name.removeprefix("image_")))
    (tmp_path / "q" / f"{BROKEN}.nii.gz").write_bytes(b"no NIfTI")
    failed = sentence(evaluator(tmp_path, "alone").run)
    output = tmp_path / "shared"

    codes, said = in_two_processes(tmp_path, deadly=True)
    assert codes == [0, -signal.SIGKILL]
    assert len(said) == 1 and "another process of this run has ended" in said[0]
    assert [row["case"] for row in read_cases(output)] == SCANS[:3] + SCANS[4:]
    page = (output / "report.html").read_text()
    done = [name for name in SCANS[:3] + SCANS[4:] if name != BROKEN]
    assert all(f"overlays/{name}.png" in page for name in done)
    times = [(output / f"{name}_seg.nii.gz").stat().st_mtime_ns for name in done]

    codes, said = in_two_processes(tmp_path)
    assert codes == [0, 0]
    # told by one process, whichever the scan was of
    assert said == [failed.replace(str(tmp_path / "alone"), str(output))]
    assert [(output / f"{name}_seg.nii.gz").stat().st_mtime_ns for name in done] == times
    assert results(output) == results(tmp_path / "alone")
    assert record(output) == record(tmp_path / "alone")
    assert [row["case"] for row in read_cases(output)] == SCANS
