"""Run a function as a command: its arguments are the options, its docstring is the help."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import fire
import yaml

from fsmis_components.data.errors import DataError

Function = Callable[..., Any]


def command(
    functions: Function | Mapping[str, Function],
    arguments: list[str] | None = None,
    joined: bool = True,
) -> int:
    """Run what the command line asks for.

    Values after one option belong together: `--folds 0 1` and `--folds 0,1` are the same. What is
    no number and no switch arrives as it was written, also a folder called 007.

    Args:
        functions: one function, or those of the subcommands by name. A list that a function returns
            holds failures, a sentence each.
        arguments: of the command line; None: those of this process.
        joined: several values after one option belong to it; False: the second stands for itself.

    Returns:
        0; 1 where something failed, which is said in one sentence.
    """
    named = dict(functions) if isinstance(functions, Mapping) else {"": functions}
    words = list(sys.argv[1:] if arguments is None else arguments)
    if joined:
        kinds = [kind for function in named.values() for kind in get_type_hints(function).items()]
        words = _joined(words, switches={f"--{name}" for name, kind in kinds if kind is bool})
    calls: list[Callable[[], Any]] = []
    if asked := bool({"--help", "-h"} & set(words)):
        words = [*(word for word in words[:1] if word in named), "--", "--help"]
    else:  # help shows the functions as they are, without what Fire keeps on them
        named = {name: _noted(function, calls) for name, function in named.items()}
    said = io.StringIO()
    failures: list[Any] = []
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            fire.Fire(named.get("", named), command=words, name=Path(sys.argv[0]).name)
        result = calls[-1]() if calls else None
        failures = result if isinstance(result, list) else []
    except fire.core.FireExit as ended:
        if ended.code:
            failures = [f"{ended.trace.elements[-1].ErrorAsStr()}; see --help."]
    except DataError as error:
        failures = [error]
    except KeyboardInterrupt:
        print("stopped; give the same command to go on", file=sys.stderr)
        return 130
    for failure in failures:
        print(failure, file=sys.stderr)
    if calls or failures:
        return int(bool(failures))
    say(said.getvalue().strip())
    return 0 if asked else 1


def say(text: str) -> None:
    """Print a page; a reader that has enough of it, as `head`, may close the pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python writes what is left at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def listed(values: Any, kind: Callable[[str], Any] = str, comma: str = ",") -> list[Any]:
    """The values of an option that takes one or several.

    Args:
        values: as they arrive: one value, a tuple, or text with a line per value.
        kind: what each is to be, such as `int`; anything else is a `DataError`.
        comma: what parts the values of one word; a line break: nothing does.
    """
    if isinstance(values, str):
        values = values.split("\n" if "\n" in values else comma)
    found = list(values) if isinstance(values, list | tuple | range) else [values]
    try:
        return [kind(str(value)) for value in found]
    except ValueError as error:
        raise DataError(f"{', '.join(map(str, found))}: {error}.") from error


def pairs(values: str | None, option: str) -> dict[str, Any]:
    """What stands in KNOB=VALUE, the values as YAML; anything else is a `DataError`."""
    found = {}
    for text in listed(values, comma="\n") if values else []:
        name, sign, value = text.partition("=")
        if not sign:
            raise DataError(f"--{option}: expected KNOB=VALUE, got {text}.")
        found[name] = yaml_value(value, f"--{option} {name}")
    return found


def yaml_value(text: str | None, option: str) -> Any:
    """YAML of the command line, a `DataError` where it cannot be read; None where there is none."""
    try:
        return None if text is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{option}: {text} cannot be read; check its quotes.") from error


def _noted(function: Function, calls: list[Callable[[], Any]]) -> Function:
    """The function's signature on one that only notes the call: what it prints stays visible."""

    @functools.wraps(function)
    def note(*values: Any, **options: Any) -> None:
        calls.append(functools.partial(function, *values, **options))

    parsers = {
        name: functools.partial(_parsed, name, str(kind))
        for name, kind in get_type_hints(function).items()
        if name != "return"
    }
    # of what has no parser of its own too: Fire's would take a folder 1e3 for a number
    return fire.decorators.SetParseFns(**parsers)(fire.decorators.SetParseFn(str)(note))


def _parsed(name: str, kind: str, text: str) -> Any:
    """The value of an option; text stays as it was written."""
    for number in (int, float):
        if number.__name__ in kind:
            try:
                return number(text)
            except ValueError:
                raise DataError(f"--{name}: expected a number, got {text}.") from None
    if "bool" in kind:
        return chosen(name, text, ("True", "False")) == "True"
    return Path(text) if "Path" in kind else text


def _joined(words: list[str], switches: Container[str]) -> list[str]:
    """Put the values that follow an option, but for switches, into one word, a line for each."""
    found: list[str] = []
    waits = has_one = False  # an option waits for its value; it has one, and the next joins it
    for word in words:
        if word.startswith("--"):
            alone = word in switches
            found.append(f"{word}=True" if alone else word)
            waits, has_one = not alone and "=" not in word, False
        elif has_one:
            found[-1] += f"\n{word}"
        else:
            found.append(word)
            waits, has_one = False, waits
    return found


def chosen(option: str, value: Any, known: tuple[Any, ...]) -> Any:
    """A value, which is a `DataError` unless it is one of those known."""
    if value not in known:
        raise DataError(f"--{option}: expected one of {', '.join(map(str, known))}, got {value}.")
    return value
