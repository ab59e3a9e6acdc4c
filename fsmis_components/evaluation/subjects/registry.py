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
from fsmis_components.evaluation.subjects.ants_syn import AntsSyN
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.subjects.fitted_bundle import FittedBundle
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet
from fsmis_components.evaluation.subjects.universeg import UniverSeg

_KNOWN = (
    "mask_copy, ants_syn, supervised_unet, universeg:WEIGHTS, a bundle folder (with :untrained, "
    ":FILE.pt, :TRAINED_FOLDER, :fit or :fit_transductive), or package.module:Class"
)
_FITS = {"fit": False, "fit_transductive": True}


def make_subject(
    spec: str, geometry: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> Subject:
    """Make a subject.

    Args:
        spec: one of `mask_copy`, `ants_syn`, `supervised_unet`, `universeg:WEIGHTS`, a bundle
            folder with nothing (shipped weights), `:untrained`, `:FILE.pt`, `:TRAINED_FOLDER`,
            `:fit` or `:fit_transductive` behind it, or `package.module:Class`.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing`.
        options: arguments of the subject; of a bundle, knobs of its `inference.json`, with `:fit`
            of its `fit.json`.

    Raises:
        DataError: no such subject, or its options or files cannot be used.
    """
    options = dict(options or {})
    name, _, rest = spec.partition(":")
    # these two have a working size of their own
    reading = {key: value for key, value in geometry.items() if key != "spatial_size"}
    try:
        if spec == "mask_copy":
            return MaskCopy(**options)
        if spec == "ants_syn":
            return AntsSyN(**options)
        if spec == "supervised_unet":
            return SupervisedUNet(**{**reading, **options})
        if name == "universeg":
            return UniverSeg(**{**reading, "weights": rest or None, **options})
    except TypeError as error:
        raise DataError(f"subject {spec}: unknown option ({error}); see its docs.") from error
    if Path(name).is_dir() and rest in _FITS:
        return FittedBundle(name, {**geometry, **options}, transductive=_FITS[rest])
    if Path(name).is_dir():
        return BundleSubject(name, rest or "shipped", {**geometry, **options})
    if rest:
        return custom_subject(spec, options)
    raise DataError(f"subject {spec}: there is no such subject; name one of {_KNOWN}.")


def custom_subject(spec: str, options: Mapping[str, Any]) -> Subject:
    """Make a subject of a user's class with its options; what it does not define, `Subject` does.

    The module of "package.module:Class" may lie in the current folder. No such module or class, no
    `predict`, or options that the class does not take are a `DataError`.
    """
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # for good: the module may import its neighbours later, too
    try:
        kind = getattr(importlib.import_module(module), name)
        if not callable(kind.predict):
            raise TypeError("predict is no method")
        inspect.signature(kind).bind(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{spec}: cannot be used ({error}); it is to be package.module:Class, a class with "
            "predict(support, query_image) that takes the options; the page of "
            "fsmis_components/evaluation has an example."
        ) from error
    bases = (kind,) if issubclass(kind, Subject) else (kind, Subject)
    subject: Subject = type(name, bases, {})(**options)
    subject.name = name if subject.name == Subject.name else str(subject.name)
    path = inspect.getsourcefile(kind)
    source = "" if path is None else file_hash(Path(path))
    subject.origin = {"spec": spec, "options": dict(options), "source": source}
    return subject
