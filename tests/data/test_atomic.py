from pathlib import Path

import pytest

from fsmis_components.data.atomic import (
    atomic_write,
    atomic_write_text,
    lock_folder,
    remove_unfinished,
)
from fsmis_components.data.errors import DataError


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path: Path, error: BaseException):
    path = atomic_write_text(tmp_path / "a.txt", "former")

    def write(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, write)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    names = []

    def write(unfinished: Path) -> None:
        names.append(unfinished.name)
        unfinished.write_bytes(b"half")

    atomic_write(tmp_path / "Scan_seg.nii.gz", write)
    kept = ["Scan_seg.nii.gz", ".hidden", ".0123456789ab.other.nii.gz", "0123456789ab.scan.nii.gz"]
    for name in [*kept[1:], names[0]]:  # the last as if the process had been killed
        (tmp_path / name).write_bytes(b"")
    remove_unfinished([tmp_path / "Scan_seg.nii.gz", tmp_path / "no folder" / "a.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    with lock_folder(folder), pytest.raises(DataError, match="another run is writing there"):
        lock_folder(folder)
    lock_folder(folder).lock.release()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --output_dir"):
        lock_folder(tmp_path / "file" / "folder")
