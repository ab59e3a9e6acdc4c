"""Which steps the inference of a volume has."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fsmis_components.data.errors import DataError


@dataclass(frozen=True)
class VolumeSteps:
    """Steps of the inference of a volume; each can be left out to see what it is worth.

    Attributes:
        z_matching: slices are matched with the support by what they look like; False spreads the
            support's thirds over the whole scan, and the other steps that need a match are left
            out too.
        shape_prior: the support's shapes say where a structure is to be expected.
        shape_moves: these shapes are moved to where the network sees the structure.
        registration: in place of the moves, the support is bent until it looks like the query;
            scans of packs of version 0.1 are moved.
        clean_up: as many parts as in the support, without holes.
    """

    z_matching: bool = True
    shape_prior: bool = True
    shape_moves: bool = True
    registration: bool = True
    clean_up: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, bool):  # the text "false" of a command line counts as true
                raise DataError(f"{name}: expected True or False, got {value!r}.")
