from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.data.one_writer import lock_folder, one_writer

HOLD = """
import sys, time
from pathlib import Path
from fsmis_components.data.one_writer import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with one_writer(folder), pytest.raises(DataError, match="another run is writing there"):
        lock_folder(folder)
    lock_folder(folder).release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="another run is writing there"):
            lock_folder(tmp_path)
        process.send_signal(signal.SIGKILL)
    lock_folder(tmp_path).release()


def test_workers_do_not_keep_a_lock(tmp_path: Path) -> None:
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


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --output_dir"):
        lock_folder(tmp_path / "file" / "folder")
