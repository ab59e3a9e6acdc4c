"""Transforms of a request of a MONAI Label server: which support is to answer, which one did."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import client_errors
from fsmis_components.label_server.rules import check_file_names, is_plain_name
from fsmis_components.label_server.studies import FINAL, is_studies_folder, labelled_volumes
from fsmis_components.support.support_request import (
    RESULT_KEY,
    SUPPORT_KEY,
    LabelledVolume,
    SupportRequest,
)

_MOST_NAMED = 1000
_LONGEST = 200  # characters of a request that are repeated in a sentence


class ResolveSupportd(MapTransform):
    """Put the support of one request into the image's meta.

    The order is: the request's own `support`; the volumes of the studies folder that a person has
    labelled, without the query itself; the bundle's own support. Nothing is shared between
    requests, so parallel workers cannot mix their supports.

    Parameters of a request, beside what the server sends:

    - `support`: ids of labelled volumes of the studies folder;
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
            with client_errors():
                meta[SUPPORT_KEY] = self._request(d, path)
        return d

    def _request(self, params: Mapping[Any, Any], query: Path) -> SupportRequest:
        check_file_names(params)
        structures, shots = params.get("structures"), params.get("num_shots")
        numbered, tag = params.get("number_structures", False), params.get("support_tag") or FINAL
        entries = structures if isinstance(structures, list) else [structures]
        named = structures is None or all(isinstance(entry, str | int) for entry in entries)
        _require(named, "structures: expected names or label values", structures)
        sound = isinstance(numbered, bool)
        _require(sound, "number_structures: expected true or false", numbered)
        _require(is_plain_name(tag), "support_tag: expected the tag of labels, as final", tag)
        sound = shots is None or (type(shots) is int and shots > 0)
        _require(sound, "num_shots: expected a whole number from 1 on", shots)
        studies = query.parent if is_studies_folder(query.parent) else self.studies_dir
        labelled = [] if studies is None else labelled_volumes(studies, tag)
        if params.get("support"):
            volumes = tuple(_named(params["support"], labelled))
            return SupportRequest("request", volumes, structures, shots, numbered)
        others = tuple(volume for volume in labelled if Path(volume.image) != query)
        if others:
            shots = self.num_shots if shots is None else shots
            return SupportRequest("datastore", others, structures, shots, numbered)
        note = "{} is the only labelled volume, which cannot support itself."
        notes = tuple(note.format(volume.id) for volume in labelled)
        return SupportRequest("bundle", (), structures, None, numbered, notes)


class ReportSupportd(MapTransform):
    """Add what the inferer says of a mask to the entry that MONAI Label answers as `params`.

    Args:
        keys: entries that hold a mask of a `VolumeInferer`; others are left as they are.
        result_key: entry that is answered.
        allow_missing_keys: skip entries that are not there.
    """

    def __init__(
        self, keys: KeysCollection, result_key: str = "result", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.result_key = result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the answer."""
        d = dict(data)
        for key in self.key_iterator(d):
            said = d[key].meta.get(RESULT_KEY) if isinstance(d[key], MetaTensor) else None
            if said is not None:
                d[self.result_key] = {**d.get(self.result_key, {}), **said}
        return d


def _named(ids: Any, labelled: list[LabelledVolume]) -> list[LabelledVolume]:
    sound = isinstance(ids, list) and len(ids) <= _MOST_NAMED
    sound = sound and all(isinstance(id, str) for id in ids)
    _require(sound, "support: expected a list of ids of labelled volumes", ids)
    known = {volume.id: volume for volume in labelled}
    for place, id in enumerate(ids, 1):
        if id not in known:
            raise DataError(
                f"support: entry {place} is no labelled volume of this server; labelled are: "
                f"{', '.join(known) or 'none'}."
            )
    return [known[id] for id in ids]


def _require(sound: bool, rule: str, value: Any) -> None:
    """Refuse a parameter, with what was expected and what came."""
    if not sound:
        text = repr(value)
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
        raise DataError(f"{rule}, got {shown}.")
