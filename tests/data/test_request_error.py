from __future__ import annotations

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError, client_errors


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
