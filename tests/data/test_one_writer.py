from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.data.one_writer import lock_folder, one_writer


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with one_writer(folder), pytest.raises(DataError, match="another run is writing there"):
        lock_folder(folder)
    lock_folder(folder).release()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --output_dir"):
        lock_folder(tmp_path / "file" / "folder")
