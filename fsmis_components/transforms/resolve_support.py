"""A transform that says which support is to answer a request of an annotation server."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import strip_nifti_suffix
from fsmis_components.data.request_error import answered
from fsmis_components.support.labelled_volume import LabelledVolume
from fsmis_components.support.studies import (
    FINAL,
    is_plain_name,
    is_served,
    is_studies_folder,
    labelled_volumes,
)
from fsmis_components.support.support_request import SUPPORT_KEY, SupportRequest

_MOST_NAMED = 1000
_LONGEST = 200  # characters of a request that are repeated in a sentence


class ResolveSupportd(MapTransform):
    """Put the support of one request into the image's meta, as plain data.

    The order is: the request's own `support`; the volumes of the studies folder that a person has
    labelled, without the query itself; the bundle's own support. Nothing is shared between
    requests, so parallel workers cannot mix their supports.

    Parameters of a request, beside what the server sends:

    - `support`: ids of labelled volumes, or {"image": path, "label": path, "names": {"1": "liver"}}
      with paths on the server, which has to lie below the studies folder where there is one;
    - `structures`: label values or names to segment;
    - `num_shots`: of each structure so many volumes serve, those that were labelled last;
    - `support_tag`: which labels of the studies folder count;
    - `number_structures`: mask values are 1..N in the order of the structures.

    Args:
        keys: entries that hold a scan; MONAI Label gives its path as `<key>_path`.
        studies_dir: labelled volumes for scans that do not lie in a studies folder, such as
            uploaded ones; None: there are none.
        num_shots: for requests that name neither it nor their support.
        allow_missing_keys: skip entries that are not there.

    Raises:
        RequestError: a parameter cannot be used; one sentence says why.
    """

    def __init__(
        self,
        keys: KeysCollection,
        studies_dir: str | Path | None = None,
        num_shots: int = 5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.studies_dir = Path(studies_dir) if studies_dir else None
        self.num_shots = num_shots

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data; the meta of each image holds the request."""
        d = dict(data)
        for key in self.key_iterator(d):
            meta = d[key].meta
            path = Path(d.get(f"{key}_path") or meta[ImageMetaKey.FILENAME_OR_OBJ]).resolve()
            with answered():
                meta[SUPPORT_KEY] = self._request(d, path).to_dict()
        return d

    def _request(self, params: Mapping[Any, Any], query: Path) -> SupportRequest:
        _check_file_names(params)
        structures = _structures(params.get("structures"))
        numbered = params.get("number_structures", False)
        if not isinstance(numbered, bool):
            raise DataError(f"number_structures: expected true or false, got {_short(numbered)}.")
        own = is_studies_folder(query.parent)
        studies = query.parent if own else self.studies_dir
        tag = params.get("support_tag") or FINAL
        if not is_plain_name(tag):
            raise DataError(
                f"support_tag: expected the tag of labels, as final, got {_short(tag)}."
            )
        named = params.get("support")
        labelled = [] if studies is None else labelled_volumes(studies, tag)
        shots = _shots(params.get("num_shots"))
        if named:
            volumes = tuple(_named(named, labelled, self.studies_dir))
            return SupportRequest("request", volumes, structures, shots, numbered)
        others = tuple(volume for volume in labelled if Path(volume.image) != query)
        if others:
            shots = self.num_shots if shots is None else shots
            return SupportRequest("datastore", others, structures, shots, numbered)
        notes = (
            (f"{labelled[0].id} is the only labelled volume, which cannot support itself.",)
            if labelled
            else ()
        )
        return SupportRequest("bundle", (), structures, None, numbered, notes)


def _check_file_names(params: Mapping[Any, Any]) -> None:
    """Refuse what would lead MONAI Label, which makes file names of it, into another folder."""
    for key in ("result_extension", "label_tag", "model_filename"):
        named = params.get(key)
        for name in named if isinstance(named, list) else [named]:
            plain = isinstance(name, str) and is_plain_name(name.lstrip("."))
            if name not in (None, "") and not plain:
                raise DataError(f"{key}: expected a plain name, got {_short(name)}.")


def _structures(structures: Any) -> Any:
    entries = structures if isinstance(structures, list) else [structures]
    if structures is not None and not all(isinstance(entry, str | int) for entry in entries):
        raise DataError(f"structures: expected names or label values, got {_short(structures)}.")
    return structures


def _shots(shots: Any) -> int | None:
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
        raise DataError(f"num_shots: expected a whole number from 1 on, got {_short(shots)}.")
    return shots


def _named(
    named: Any, labelled: list[LabelledVolume], studies: Path | None
) -> list[LabelledVolume]:
    if not isinstance(named, list) or len(named) > _MOST_NAMED:
        raise DataError(
            f"support: expected a list of ids or of image and label paths, got {_short(named)}."
        )
    known = {volume.id: volume for volume in labelled}
    own = {(volume.image, volume.label) for volume in labelled}
    volumes = []
    for place, entry in enumerate(named, 1):
        # one sentence whatever is wrong: another one would tell which files there are
        refused = DataError(
            f"support: entry {place} is no labelled volume of this server; labelled are: "
            f"{', '.join(known) or 'none'}."
        )
        if _is_id(entry):
            if entry not in known:
                raise refused
            volumes.append(known[entry])
            continue
        image, label, *_ = paths = _paths(entry)
        may_be_named = (
            studies is None
            or (str(image), str(label)) in own
            or (is_served(image, studies) and is_served(label, studies))
        )
        if not (may_be_named and image.exists() and label.exists()):
            raise refused
        volumes.append(LabelledVolume.of(paths.id, image, label, paths.names))
    return volumes


def _is_id(entry: Any) -> bool:
    return isinstance(entry, str)


class _Paths(NamedTuple):
    image: Path
    label: Path
    id: str
    names: dict[int, str]


def _paths(entry: Any) -> _Paths:
    paths = entry if isinstance(entry, dict) else {}
    image, label, names = paths.get("image"), paths.get("label"), paths.get("names") or {}
    if not (_is_path(image) and _is_path(label) and isinstance(names, dict)):
        raise DataError(
            "support: expected an id or an object with image, label and names, got "
            f"{_short(entry)}."
        )
    if not all(str(value).isdecimal() and str(value).isascii() for value in names):
        raise DataError(
            f"support: names go by label value, as {{'1': 'liver'}}, got {_short(names)}."
        )
    values = {int(value): str(name)[:_LONGEST] for value, name in names.items()}
    id = str(paths.get("id") or strip_nifti_suffix(Path(image).name))[:_LONGEST]
    return _Paths(Path(image).resolve(), Path(label).resolve(), id, values)


def _is_path(path: Any) -> TypeGuard[str]:
    return isinstance(path, str) and path.isprintable()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
