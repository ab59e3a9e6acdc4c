import errno
import os

import pytest

from fsmis_components.data.errors import DataError, exit_on_data_error, unwritable
from fsmis_components.data.request_error import RequestError, client_errors


@exit_on_data_error
def entry(value: int) -> int:
    if value < 0:
        raise DataError(f"value: expected 0 or more,\n  got {value}; name another.")
    if value == 0:
        raise ValueError("a bug")
    return value + 1


@exit_on_data_error
class Entry:
    def __init__(self, value: int) -> None:
        self.value = entry.__wrapped__(value)

    @exit_on_data_error
    def run(self, value: int) -> int:
        return entry.__wrapped__(value)


@pytest.mark.parametrize("call", [lambda: entry(-1), lambda: Entry(-1), lambda: Entry(1).run(-1)])
def test_data_error_exits_with_its_sentence(call):
    with pytest.raises(SystemExit) as caught:
        call()
    assert caught.value.code == "value: expected 0 or more, got -1; name another."


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space and give the same command again"),
        (errno.EACCES, "get the right to write there, or choose another --output_dir"),
        (errno.EROFS, "get the right to write there, or choose another --output_dir"),
        (errno.ENAMETOOLONG, "its name is too long: shorten it, or choose another --output_dir"),
        (errno.ENOTDIR, "choose another --output_dir"),
    ],
)
def test_advice_fits_the_cause(number, advice):
    reason = os.strerror(number)
    sentence = str(unwritable("masks", OSError(number, reason)))
    assert sentence == f"masks: cannot be written ({reason}); {advice}."


def test_a_data_error_becomes_an_answer() -> None:
    with (
        pytest.raises(RequestError, match="^label.nii.gz: empty; label it.$") as raised,
        client_errors(),
    ):
        raise DataError("label.nii.gz: empty;\n label it.")
    assert raised.value.status_code == 422
    assert raised.value.detail == "label.nii.gz: empty; label it."
    assert isinstance(raised.value, DataError)  # where there is no server, it is one like any other


def test_the_end_of_a_command_is_no_end_of_a_server() -> None:
    with pytest.raises(RequestError, match="no scan to train on"), client_errors():
        raise SystemExit("no scan to train on: label one.")
