"""Subjects by name, as the command line gives them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet
from fsmis_components.evaluation.subjects.universeg import UniverSeg

_KNOWN = (
    "mask_copy, supervised_unet, universeg:WEIGHTS, a bundle folder (with :untrained, :FILE.pt or "
    ":TRAINED_FOLDER), or package.module:Class"
)
_EXAMPLE = "the page of fsmis_components/evaluation has an example"


def make_subject(
    spec: str,
    geometry: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
) -> Subject:
    """Make a subject.

    Args:
        spec: one of `mask_copy`, `supervised_unet`, `universeg:WEIGHTS`, a bundle folder with
            nothing (shipped weights), `:untrained`, `:FILE.pt` or `:TRAINED_FOLDER` behind it, or
            `package.module:Class`.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing`.
        options: arguments of the subject; of a bundle, knobs of its `inference.json`.
        cache_dir: where a subject that trains on the support keeps its weights.

    Raises:
        DataError: no such subject, or its options or files cannot be used.
    """
    options = dict(options or {})
    name, _, rest = spec.partition(":")
    reading = {key: value for key, value in geometry.items() if key != "spatial_size"}
    if name == "mask_copy" and not rest:
        axes = {key: value for key, value in reading.items() if key != "modality"}
        return _made(MaskCopy, spec, {**axes, **options})
    # these two have a working size of their own
    if name == "supervised_unet" and not rest:
        return _made(SupervisedUNet, spec, {**reading, "cache_dir": cache_dir, **options})
    if name == "universeg":
        return _made(UniverSeg, spec, {**reading, "weights": rest or None, **options})
    if Path(name).is_dir():
        return BundleSubject(name, rest or None, {**geometry, **options})
    if rest:
        return custom_subject(spec, options)
    raise DataError(f"subject {spec}: there is no such subject; name one of {_KNOWN}.")


def custom_subject(spec: str, options: Mapping[str, Any]) -> Subject:
    """Make a subject of a user's class; what it does not define, `Subject` does.

    Args:
        spec: "package.module:Class"; the module may lie in the current folder.
        options: keyword arguments of the class.

    Raises:
        DataError: no such module or class, no `predict`, or options that the class does not take.
    """
    module_name, _, class_name = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise DataError(f"{spec}: expected package.module:Class; {_EXAMPLE}.")
    kind = getattr(_module(module_name), class_name, None)
    if not inspect.isclass(kind):
        raise DataError(f"{spec}: module {module_name} has no class {class_name}; check the name.")
    if not callable(getattr(kind, "predict", None)):
        raise DataError(f"{spec}: the class has no predict(support, query_image); {_EXAMPLE}.")
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise DataError(
            f"{spec}: its constructor does not take the options {dict(options)} ({error}); change "
            "them."
        ) from error
    bases = (kind,) if issubclass(kind, Subject) else (kind, Subject)
    subject: Subject = type(class_name, bases, {})(**options)
    subject.name = class_name if subject.name == Subject.name else str(subject.name)
    path = inspect.getsourcefile(kind)
    source = "" if path is None else file_hash(Path(path))
    subject.origin = {"spec": spec, "options": dict(options), "source": source}
    return subject


def _module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # for good: the module may import its neighbours later, too
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if name == missing or name.startswith(f"{missing}."):
            raise DataError(
                f"{name}: no such module; run the command in its folder, or install its package."
            ) from error
        raise DataError(
            f"{name}: needs the package {missing}, which is not installed; install it."
        ) from error


def _made(kind: type[Subject], spec: str, options: Mapping[str, Any]) -> Subject:
    try:
        return kind(**options)
    except TypeError as error:
        raise DataError(f"subject {spec}: unknown option ({error}); see its docs.") from error
