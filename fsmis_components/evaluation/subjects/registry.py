"""Subjects by name, as the command line gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.subjects.custom import load_custom
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet
from fsmis_components.evaluation.subjects.universeg import UniverSegSubject

_KNOWN = (
    "mask_copy, supervised_unet, universeg:WEIGHTS, a bundle folder (with :untrained, :FILE.pt or "
    ":TRAINED_FOLDER), or package.module:Class"
)


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
        return _made(UniverSegSubject, spec, {**reading, "weights": rest or None, **options})
    if Path(name).is_dir():
        return BundleSubject(name, rest or None, {**geometry, **options})
    if rest:
        return load_custom(spec, options)
    raise DataError(f"subject {spec}: there is no such subject; name one of {_KNOWN}.")


def _made(kind: type[Subject], spec: str, options: Mapping[str, Any]) -> Subject:
    try:
        return kind(**options)
    except TypeError as error:
        raise DataError(f"subject {spec}: unknown option ({error}); see its docs.") from error
