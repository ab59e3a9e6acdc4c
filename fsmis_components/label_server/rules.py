"""What a request may hold: plain names, and parameters that are known by name and type.

MONAI Label puts ids, tags and file names of a request into paths, and its parameters into configs.
MONAI evaluates text in a config that begins with $, and looks up what begins with % or @. So of a
training every parameter is known by name, and no text of any request may begin with such a sign.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsmis_components.data.errors import DataError

ENDINGS = (".nii", ".nii.gz", ".nrrd")  # of scans and masks
_LONGEST_NAME = 200
_LONGEST = 1000  # characters of a text
_MOST = 20_000  # texts and numbers of a request
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?|mps")
_WORD = re.compile(r"[A-Za-z0-9_]{1,64}")
_WEIGHTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.pt")
_LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


def is_plain_name(text: object) -> bool:
    """Whether an id or a tag of a request is a name: it leads into no other folder.

    Nor can it be taken for an expression of a config, an option of a command or a hidden file.
    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= _LONGEST_NAME
        and text.isprintable()
        and text == text.strip()
        and text[0] not in "$%@.-~"
        and not set(text) & set('/\\:*?"<>|')
    )


def check_name(what: str, text: str) -> None:
    """Refuse an id that leads into another folder; the sentence begins with `what`."""
    if not is_plain_name(text):
        raise DataError(f"{what}: expected a plain name, without folders and signs.")


def check_tag(tag: str) -> None:
    """Refuse a tag of labels that is no word."""
    if not (tag.isascii() and tag.replace("_", "").isalnum()):
        raise DataError("tag: expected a name of letters, digits and _.")


def check_upload(field: str, name: str) -> None:
    """Refuse a file whose name no client of ours sends; archives are not unpacked."""
    name = re.split(r"[/\\\\]", name)[-1]  # MONAI's client sends the folder on its own machine too
    bare = "." not in name and field == "files"  # slices of a series often have no ending
    endings = (*ENDINGS, ".dcm")
    if not is_plain_name(name) or not (bare or name.lower().endswith(endings)):
        raise DataError(
            f"{field}: expected a file with a plain name that ends in {', '.join(endings)}."
        )


def address_names(names: Iterable[str]) -> dict[str, str]:
    """Names that are safe in addresses, each with the structure's name.

    "Left kidney" becomes "left_kidney"; a second name with the same result gets a number.
    """
    found: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "structure"
        number, free = 2, slug
        while free in found:
            free, number = f"{slug}_{number}", number + 1
        found[free] = name
    return found


def _text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, type(values[0])) and value in values


def _number(lowest: float, highest: float, whole: bool = False) -> Callable[[Any], bool]:
    kinds = (int,) if whole else (int, float)
    return lambda value: (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and lowest <= value <= highest
    )


def _flag(value: Any) -> bool:
    return isinstance(value, bool) or value in ("true", "false", "True", "False")


_Rules = dict[str, Callable[[Any], bool]]
_COMMON: _Rules = {
    "device": _text(_DEVICE),
    "model": _text(re.compile(r"\w[\w.-]{0,199}")),
    "model_filename": _text(_WEIGHTS),
    "multi_gpu": _flag,
    "client_id": lambda value: value is None or isinstance(value, str),  # for the log
    "gpus": _text(re.compile(r"all|\d{1,2}(,\d{1,2}){0,63}")),
}
TRAINING: _Rules = {**_COMMON, "minutes": _number(0, 10_000)}
INFERENCE: _Rules = {
    **_COMMON,
    "result_extension": _one_of(*ENDINGS),
    "result_dtype": _one_of("uint8", "uint16", "int16", "int32", "float32"),
    "result_compress": _flag,
    "label_tag": _text(_WORD),
    "save_label": _flag,
    "logging": lambda value: isinstance(value, str) and value.upper() in _LEVELS,
    "max_workers": _number(0, 1000, whole=True),
    "max_batch_size": _number(0, 10**6, whole=True),
    "timeout": _number(0, 10**6),
    "seconds": _number(0, 10**6),
}
# the server's own notes beside a scan or a label, with which it reckons: a wrong one would end
# every later request with an error
KEPT: _Rules = {
    "ts": _number(0, 1e12),
    "params": lambda value: isinstance(value, Mapping),
    "strategy": lambda value: (
        isinstance(value, Mapping)
        and all(
            isinstance(each, Mapping) and _number(0, 1e12)(each.get("ts", 0))
            for each in value.values()
        )
    ),
}
# what would name a file, or overrule what the server itself puts into a request
_OWN = {"label", "image_path", "label_path", "description", "session", "local_rank", "images"}


def check_parameters(door: str, content: Any) -> None:
    """Refuse parameters of a request by a `DataError` that names the first one not taken.

    `door` is the first part of its address ("train", "infer", ...), `content` the JSON that came.
    """
    if content is None:
        return
    if not isinstance(content, Mapping):
        raise DataError("The parameters have to be an object with names.")
    _check_texts(content)
    if door == "train":
        for name, value in content.items():
            # all models at once: parameters by the model's name
            parameters = value.items() if isinstance(value, Mapping) else [(name, value)]
            for known, each in parameters:
                if known not in TRAINING:
                    raise DataError(f"{known[:100]}: no parameter of a training on this server.")
                _check_value(known, each, TRAINING[known])
    elif door in ("infer", "batch", "activelearning"):
        for name, value in content.items():
            if name in _OWN:
                raise DataError(f"{name}: is set by the server, not by a request.")
            if name in INFERENCE:
                _check_value(name, value, INFERENCE[name])
        _check_label_info(content.get("label_info"))
    else:
        for name, sound in KEPT.items():
            if name in content and not sound(content[name]):
                raise DataError(f"{name}: this value is not kept; leave it out.")
        _check_label_info(content.get("label_info"))


def check_file_names(content: Mapping[Any, Any]) -> None:
    """Refuse what would lead MONAI Label, which makes file names of it, into another folder."""
    for name in ("result_extension", "label_tag", "model_filename"):
        if content.get(name) not in (None, ""):
            _check_value(name, content[name], INFERENCE[name])


def _check_value(name: str, value: Any, sound: Callable[[Any], bool]) -> None:
    # of a choice a client may send the whole list back
    values = value if isinstance(value, list) and value else [value]
    if not all(sound(each) for each in values):
        raise DataError(f"{name}: this value is not taken; see the server's options for it.")


def _check_label_info(value: Any) -> None:
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise DataError("label_info: expected a list of objects with name and idx.")


def _check_texts(content: Any) -> None:
    """No text may be evaluated, end a file name early, or fill the log; JSON can answer with it."""
    count, waiting = 0, [content]
    while waiting:
        node = waiting.pop()
        count += 1
        if count > _MOST:
            raise DataError("The parameters are too many.")
        if isinstance(node, Mapping):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            if len(node) > _LONGEST or "\0" in node:
                raise DataError(
                    f"A text of the parameters is longer than {_LONGEST}, or holds NUL."
                )
            if node.lstrip()[:1] in ("$", "%", "@"):
                raise DataError("No text of the parameters may begin with $, % or @.")
            if any("\ud800" <= letter <= "\udfff" for letter in node):
                raise DataError("A text of the parameters is no Unicode.")
        elif isinstance(node, float) and not math.isfinite(node):
            raise DataError("A number of the parameters is not finite.")
