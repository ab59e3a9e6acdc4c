"""A method that is not ours as a subject: any class with `predict(support, query_image)`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Group, Subject
from fsmis_components.support.support_set import SupportSet

_EXAMPLE = "the page of fsmis_components/evaluation has an example"


def load_custom(spec: str, options: Mapping[str, Any]) -> Subject:
    """Make a subject of a user's class.

    Args:
        spec: "package.module:Class"; the module may lie in the current folder.
        options: keyword arguments of the class.

    Returns:
        The subject; label maps of the method are checked before they are scored.

    Raises:
        DataError: no such module or class, no `predict`, or options that the class does not take.
    """
    module_name, _, class_name = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise DataError(f"{spec}: expected package.module:Class; {_EXAMPLE}.")
    method = getattr(_module(module_name), class_name, None)
    if not inspect.isclass(method):
        raise DataError(f"{spec}: module {module_name} has no class {class_name}; check the name.")
    if not callable(getattr(method, "predict", None)):
        raise DataError(f"{spec}: the class has no predict(support, query_image); {_EXAMPLE}.")
    try:
        inspect.signature(method).bind(**options)
    except TypeError as error:
        raise DataError(
            f"{spec}: its constructor does not take the options {dict(options)} ({error}); change "
            "them."
        ) from error
    return CustomSubject(method(**options), spec, options)


class CustomSubject(Subject):
    """A user's method; what it does not define, `Subject` does.

    Args:
        method: has `predict`, and may have any other attribute or method of `Subject`.
        spec: where it comes from, "package.module:Class".
        options: the arguments with which it was made.
    """

    def __init__(self, method: Any, spec: str, options: Mapping[str, Any]) -> None:
        self.method = method
        self.spec = spec
        self.options = dict(options)
        own_name = getattr(method, "name", Subject.name)
        self.name = spec.partition(":")[2] if own_name == Subject.name else str(own_name)
        self.setting = str(getattr(method, "setting", Subject.setting))
        self.labelled = tuple(getattr(method, "labelled", Subject.labelled))

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`.

        Raises:
            DataError: the method returned something else than a label map of the query.
        """
        label = np.asarray(self.method.predict(support, query_image))
        if label.shape != query_image.shape or label.dtype.kind not in "biu":
            raise DataError(
                f"{self.spec}: predict returned {label.dtype} of shape {label.shape}; it has to "
                f"return integers of the query's shape {query_image.shape}."
            )
        return label

    def predict_masks(
        self, support: SupportSet, query_image: Volume, grid: SliceGrid
    ) -> np.ndarray:
        """See `Subject.predict_masks`."""
        return (self._own("predict_masks") or super().predict_masks)(support, query_image, grid)

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """See `Subject.predict_told`."""
        told = self._own("predict_told") or super().predict_told
        return told(support, query_image, grid, sections, overlap)

    def load(self, fold: int, group: Group) -> None:
        """See `Subject.load`."""
        (self._own("load") or super().load)(fold, group)

    def groups(self) -> Sequence[Group]:
        """See `Subject.groups`."""
        return (self._own("groups") or super().groups)()

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`; with the options and a hash of the module's file."""
        path = inspect.getsourcefile(type(self.method))
        source = "" if path is None else file_hash(Path(path))
        stated = (self._own("identity") or super().identity)(fold, group)
        return {**stated, "spec": self.spec, "options": self.options, "source": source}

    def _own(self, name: str) -> Any:
        """A method that the user wrote; None where there is none, or only that of `Subject`.

        What `Subject` does is done here, so that it goes through the check of `predict`.
        """
        inherited = getattr(type(self.method), name, None) is getattr(Subject, name)
        return None if inherited else getattr(self.method, name, None)


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
