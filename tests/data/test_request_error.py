from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from fsmis_components.data import request_error
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


def test_other_errors_pass_and_answers_are_not_wrapped_twice() -> None:
    with pytest.raises(KeyError), client_errors():
        raise KeyError("bug")
    first = RequestError("one sentence.")
    with pytest.raises(RequestError) as raised, client_errors(), client_errors():
        raise first
    assert raised.value is first


def test_a_server_takes_it_for_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class HTTPException(Exception):
        def __str__(self) -> str:
            return "422: not our sentence"

    framework = types.ModuleType("starlette.exceptions")
    framework.HTTPException = HTTPException  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "starlette", types.ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.exceptions", framework)
    # once more under another name, so that the class that all others use stays what it is
    spec = importlib.util.spec_from_file_location("request_error_again", request_error.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    error = module.RequestError("one sentence.")
    assert isinstance(error, HTTPException) and isinstance(error, DataError)
    assert str(error) == error.detail == "one sentence." and error.status_code == 422


def test_the_end_of_a_command_is_no_end_of_a_server() -> None:
    with pytest.raises(RequestError, match="no scan to train on"), client_errors():
        raise SystemExit("no scan to train on: label one.")
