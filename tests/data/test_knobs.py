"""Knobs as they arrive from a command line that Fire reads."""

from __future__ import annotations

import pytest

from fsmis_components.data.knobs import check_knobs


@pytest.mark.parametrize("value", [True, 20241128, 1e5, ["a"], {"a": 1}])
def test_a_value_that_is_no_path(value: object) -> None:
    with pytest.raises(SystemExit, match=r"--support_dir: expected the path .* needs \./ in front"):
        check_knobs({"support_dir": value})


@pytest.mark.parametrize("value", ["false", "true", "no", "", 2, None, []])
def test_a_switch_that_is_neither_on_nor_off(value: object) -> None:
    with pytest.raises(SystemExit, match="--uncertainty: expected True or False"):
        check_knobs({}, {"clean_up": True, "self_test": 0, "uncertainty": value})
