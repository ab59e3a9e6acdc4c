"""Knobs of a command line that did not arrive as they were typed.

MONAI reads its command line with Fire, which takes what looks like Python for Python: a folder
called 20241128 arrives as a number, 1e5 as 100000.0, `scans#2` as "scans", and `false` as a text,
which counts as true. What is lost so is found here, before anything is read or written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping

from fire import parser

from fsmis_components.data.errors import DataError, exit_on_data_error


@exit_on_data_error
def check_knobs(
    paths: Mapping[str, object],
    switches: Mapping[str, object] | None = None,
    several: Collection[str] = (),
) -> None:
    """Check the knobs of a config, for its list `initialize`.

    Those of `paths` name a folder or file, None where they are not set; those that are named in
    `several` may also be a list of paths. `switches` are on or off.

    Raises:
        SystemExit: a value is no path, or no switch; the sentence says how to write it.
    """
    for name, value in paths.items():
        for each in value if name in several and isinstance(value, list | tuple) else [value]:
            if each is not None:
                check_path(name, each)
    for name, value in (switches or {}).items():
        if value not in (True, False):
            raise DataError(f"--{name}: expected True or False, got {value!r}; write one of them.")


def check_path(name: str, value: object) -> None:
    """Refuse the value of a knob that is no path, or another one than what was typed.

    Raises a `DataError`: it is no text, empty, or Fire made it of another text.
    """
    typed = _typed(name, value)
    if typed:
        raise DataError(
            f"--{name} {typed}: does not arrive as it is written but as {value!r} "
            f"({type(value).__name__}); write ./{typed} (or its whole path) for a file or folder "
            "of this name."
        )
    if not isinstance(value, str | os.PathLike):
        raise DataError(
            f"--{name}: expected the path of a file or folder, got {value!r}; a name that looks "
            "like a number or a list needs ./ in front."
        )
    if not str(value).strip():
        raise DataError(f"--{name}: is empty; name a file or folder, or leave the knob out.")


def _typed(name: str, value: object) -> str:
    """What was typed for a knob where Fire made something else of it; "" where it did not."""
    words = sys.argv[1:]
    for word, after in zip(words, [*words[1:], ""], strict=False):
        knob, equals, text = word.partition("=")
        if not knob.startswith("-") or knob.lstrip("-").replace("-", "_") != name:
            continue
        text = text if equals else after
        # quotation marks inside those of the shell say on purpose that it is a text
        if text[:1] not in ("'", '"') and text != value and parser.DefaultParseValue(text) == value:
            return text
    return ""
