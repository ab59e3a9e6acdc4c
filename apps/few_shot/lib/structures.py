"""Which structures are labelled in which volumes, and how they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fsmis_components.data.errors import DataError
from fsmis_components.support.common_structures import common_structures
from fsmis_components.support.keeper import Keeper
from fsmis_components.support.labelled_volume import LabelledVolume

Values = Mapping[LabelledVolume, tuple[int, ...]]

_MOST_VOLUMES = 1000


class LabelValues:
    """The values that labels hold; a label is read once as long as it does not change."""

    def __init__(self) -> None:
        self._keeper: Keeper[tuple[int, ...]] = Keeper(_MOST_VOLUMES)

    def usable(self, volumes: Iterable[LabelledVolume]) -> dict[LabelledVolume, tuple[int, ...]]:
        """The volumes that can serve as support, in their order, with their values above 0."""
        found = {}
        for volume in volumes:
            try:
                found[volume] = self._keeper.get(volume.key, volume.values)
            except DataError:
                continue  # whoever asks for a mask is told why
        return found


def structure_names(usable: Values) -> list[str]:
    """Names of the structures, in the order in which `number_structures` numbers them."""
    names, _ = common_structures(usable)
    return [names[value] for value in sorted(names)]


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Names that are safe in addresses, each with the structure's own name.

    "Left kidney" becomes "left_kidney"; a second name with the same result gets a number.
    """
    found: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "structure"
        number, free = 2, slug
        while free in found:
            free, number = f"{slug}_{number}", number + 1
        found[free] = name
    return found
