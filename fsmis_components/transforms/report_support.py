"""A transform that tells the person who asked which support has answered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from fsmis_components.support.support_request import RESULT_KEY


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
