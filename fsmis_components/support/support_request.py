"""Which support a request is to be answered with: plain data that travels with the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fsmis_components.support.labelled_volume import LabelledVolume

Origin = Literal["request", "datastore", "bundle"]

SUPPORT_KEY = "fsmis_support"  # entry of an image's meta: the request as plain values
RESULT_KEY = "fsmis_result"  # entry of a mask's meta: which support answered and what it says


@dataclass(frozen=True)
class SupportRequest:
    """The support of one request.

    Attributes:
        origin: who named it; "bundle": nobody, so the bundle's own support answers.
        volumes: the labelled volumes, in the order in which they were labelled; the first one sets
            the working grid.
        structures: label values or names to segment; None: all.
        num_shots: of each structure so many volumes serve, those that were labelled last; None:
            all.
        number_structures: mask values are 1..N in the order of the structures; otherwise they are
            those of the labels.
        notes: sentences for the person who asked.
    """

    origin: Origin
    volumes: tuple[LabelledVolume, ...] = ()
    structures: str | int | Sequence[str | int] | None = None
    num_shots: int | None = None
    number_structures: bool = False
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for requests that the same support answers."""
        structures = self.structures
        wanted = structures if isinstance(structures, str | int | None) else tuple(structures)
        volumes = tuple(volume.key for volume in self.volumes)
        return volumes, wanted, self.num_shots, self.number_structures

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "origin": self.origin,
            "volumes": [volume.to_dict() for volume in self.volumes],
            "structures": self.structures,
            "num_shots": self.num_shots,
            "number_structures": self.number_structures,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SupportRequest:
        """The request that `to_dict` described."""
        return cls(
            content["origin"],
            tuple(LabelledVolume.from_dict(entry) for entry in content["volumes"]),
            content["structures"],
            content["num_shots"],
            content["number_structures"],
            tuple(content["notes"]),
        )
