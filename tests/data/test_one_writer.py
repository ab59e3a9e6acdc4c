from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.data.one_writer import lock_folder, one_writer, take_lock

HOLD = """
import sys, time
from pathlib import Path
from fsmis_components.data.one_writer import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_the_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with one_writer(folder):
        assert list(folder.iterdir())
    assert not list(folder.iterdir())


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with one_writer(tmp_path), pytest.raises(DataError, match="another run is writing there"):
        lock_folder(tmp_path)
    lock_folder(tmp_path).release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="another run is writing there"):
            lock_folder(tmp_path)
        process.send_signal(signal.SIGKILL)
    lock_folder(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_workers_do_not_inherit_a_lock(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    child = os.fork()
    if child == 0:
        time.sleep(600)
    try:
        lock.release()
        lock_folder(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_never_two_at_once(tmp_path: Path) -> None:
    """The file of a lock is removed with it: who opened it before must not hold a ghost."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(200):
            lock = take_lock(tmp_path / "lock")
            if lock is not None:
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                lock.release()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert max(most) == 1 and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --output_dir"):
        lock_folder(tmp_path / "file" / "folder")
