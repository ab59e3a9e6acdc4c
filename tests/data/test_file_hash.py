import hashlib
from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash


def test_file_and_folder(tmp_path: Path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "b.dcm").write_bytes(content)
    (tmp_path / "a.dcm").write_bytes(b"first")
    assert file_hash(tmp_path / "b.dcm") == hashlib.sha256(content).hexdigest()
    assert file_hash(tmp_path) == hashlib.sha256(b"first" + content).hexdigest()


def test_missing(tmp_path: Path):
    with pytest.raises(DataError, match="a.dcm: cannot be read"):
        file_hash(tmp_path / "a.dcm")
