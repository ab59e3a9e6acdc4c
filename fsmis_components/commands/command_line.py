"""Run a function as a command: its arguments are the options, its docstring is the help."""

from __future__ import annotations

import contextlib
import functools
import io
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
    named = functions if isinstance(functions, Mapping) else {"": functions}
    switches = {
        f"--{name}"
        for function in named.values()
        for name, kind in get_type_hints(function).items()
        if kind is bool
    }
    words = list(sys.argv[1:] if arguments is None else arguments)
    words = _joined(words, switches) if joined else words
    if asked := bool({"--help", "-h"} & set(words)):
        words = [*(word for word in words[:1] if word in named), "--", "--help"]
    calls: list[Callable[[], Any]] = []
    said = io.StringIO()
    try:
        parsed = {name: _noted(each, calls) for name, each in named.items()}
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            fire.Fire(parsed.get("", parsed), command=words, name=Path(sys.argv[0]).name)
    except fire.core.FireExit as ended:
        if ended.code == 0:
            print(said.getvalue().strip())
            return 0
        print(f"{ended.trace.elements[-1].ErrorAsStr()}; see --help.", file=sys.stderr)
        return 1
    except DataError as error:  # a value of another kind
        print(error, file=sys.stderr)
        return 1
    if not calls:
        print(said.getvalue().strip())
        return 0 if asked else 1
    try:
        result = calls[-1]()
        failures = result if isinstance(result, list) else []
    except DataError as error:
        failures = [error]
    except KeyboardInterrupt:
        print("stopped; give the same command to go on", file=sys.stderr)
        return 130
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


def listed(values: Any, kind: Callable[[str], Any] = str, comma: str = ",") -> list[Any]:
    """The values of an option that takes one or several.

    Args:
        values: as they arrive: one value, a tuple, or text with a line per value.
        kind: what each is to be, such as `int`.
        comma: what parts the values of one word; a line break: nothing does.

    Raises:
        DataError: one of them is something else.
    """
    if isinstance(values, str):
        values = values.split("\n" if "\n" in values else comma)
    found = list(values) if isinstance(values, list | tuple | range) else [values]
    try:
        return [kind(str(value)) for value in found]
    except ValueError as error:
        raise DataError(f"{', '.join(map(str, found))}: {error}.") from error


def pairs(values: str | None, option: str) -> dict[str, Any]:
    """What stands in KNOB=VALUE, the values as YAML.

    Raises:
        DataError: something else stands there.
    """
    found = {}
    for text in listed(values, comma="\n") if values else []:
        name, sign, value = text.partition("=")
        if not sign:
            raise DataError(f"--{option}: expected KNOB=VALUE, got {text}.")
        found[name] = yaml_value(value, f"--{option} {name}")
    return found


def yaml_value(text: str | None, option: str) -> Any:
    """YAML of the command line; None where there is none.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return None if text is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{option}: {text} cannot be read; check its quotes.") from error


def _noted(function: Function, calls: list[Callable[[], Any]]) -> Function:
    """The function's signature on one that only notes the call: what it prints stays visible."""

    @functools.wraps(function)
    def note(*values: Any, **options: Any) -> None:
        calls.append(functools.partial(function, *values, **options))

    kinds = get_type_hints(function)
    parsers = {name: _parser(name, str(kind)) for name, kind in kinds.items() if name != "return"}
    # of what has no parser of its own too: Fire's would take a folder 1e3 for a number
    return fire.decorators.SetParseFns(**parsers)(fire.decorators.SetParseFn(str)(note))


def _parser(name: str, kind: str) -> Callable[[str], Any]:
    """What makes a value of the text of an option; text stays as it was written."""
    for number in (int, float):
        if number.__name__ in kind:
            return functools.partial(_number, name, number)
    if "bool" in kind:
        return lambda text: chosen(name, text, ("True", "False")) == "True"
    return Path if "Path" in kind else str


def _number(name: str, kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise DataError(f"--{name}: expected a number, got {text}.") from None


def _joined(words: list[str], switches: Container[str]) -> list[str]:
    """Put the values that follow one option into one word, a line for each.

    Args:
        words: of the command line.
        switches: options that take no value, so that the word behind them stands for itself.
    """
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
    """A value that is one of those known.

    Raises:
        DataError: it is not.
    """
    if value not in known:
        raise DataError(f"--{option}: expected one of {', '.join(map(str, known))}, got {value}.")
    return value
