"""A transform that says which support is to answer a request of an annotation server."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import answered
from fsmis_components.support.labelled_volume import LabelledVolume
from fsmis_components.support.studies import FINAL, is_studies_folder, labelled_volumes
from fsmis_components.support.support_request import SUPPORT_KEY, SupportRequest


class ResolveSupportd(MapTransform):
    """Put the support of one request into the image's meta, as plain data.

    The order is: the request's own `support`; the volumes of the studies folder that a person has
    labelled, without the query itself; the bundle's own support. Nothing is shared between
    requests, so parallel workers cannot mix their supports.

    Parameters of a request, beside what the server sends:

    - `support`: ids of labelled volumes, or {"image": path, "label": path, "names": {"1": "liver"}}
      with paths on the server;
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
        structures = _structures(params.get("structures"))
        numbered = params.get("number_structures", False)
        if not isinstance(numbered, bool):
            raise DataError(f"number_structures: expected true or false, got {numbered!r}.")
        own = is_studies_folder(query.parent)
        studies = query.parent if own else self.studies_dir
        tag = params.get("support_tag") or FINAL
        if not isinstance(tag, str) or Path(tag).name != tag:
            raise DataError(f"support_tag: expected the tag of labels, as final, got {tag!r}.")
        named = params.get("support")
        by_path = isinstance(named, list) and bool(named) and not any(map(_is_id, named))
        labelled = [] if studies is None or by_path else labelled_volumes(studies, tag)
        shots = _shots(params.get("num_shots"))
        if named:
            volumes = tuple(_named(named, labelled))
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


def _structures(structures: Any) -> Any:
    entries = structures if isinstance(structures, list) else [structures]
    if structures is not None and not all(isinstance(entry, str | int) for entry in entries):
        raise DataError(f"structures: expected names or label values, got {structures!r}.")
    return structures


def _shots(shots: Any) -> int | None:
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
        raise DataError(f"num_shots: expected a whole number from 1 on, got {shots!r}.")
    return shots


def _named(named: Any, labelled: list[LabelledVolume]) -> list[LabelledVolume]:
    if not isinstance(named, list):
        raise DataError(
            f"support: expected a list of ids or of image and label paths, got {named!r}."
        )
    known = {volume.id: volume for volume in labelled}
    volumes = []
    for entry in named:
        if _is_id(entry):
            if entry not in known:
                listing = ", ".join(known) or "none"
                raise DataError(
                    f"support: {entry} is no labelled volume; those that are labelled: {listing}."
                )
            volumes.append(known[entry])
        else:
            volumes.append(_volume(entry))
    return volumes


def _is_id(entry: Any) -> bool:
    return isinstance(entry, str)


def _volume(entry: Any) -> LabelledVolume:
    paths = entry if isinstance(entry, dict) else {}
    image, label, names = paths.get("image"), paths.get("label"), paths.get("names") or {}
    if not isinstance(image, str) or not isinstance(label, str) or not isinstance(names, dict):
        raise DataError(
            f"support: expected an id or an object with image, label and names, got {entry!r}."
        )
    if not all(str(value).isdecimal() for value in names):
        raise DataError(
            f"support: names go by label value, as {{'1': 'liver'}}, got {', '.join(names)}."
        )
    values = {int(value): str(name) for value, name in names.items()}
    id = str(paths.get("id") or Path(image).name.removesuffix(".gz").removesuffix(".nii"))
    return LabelledVolume.of(id, Path(image).resolve(), Path(label).resolve(), values)
