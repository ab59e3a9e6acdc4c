"""One numbering for labels of several volumes, whose values may mean different structures."""

from __future__ import annotations

from collections.abc import Mapping

from fsmis_components.support.labelled_volume import LabelledVolume, fold_name


def common_structures(
    volumes: Mapping[LabelledVolume, tuple[int, ...]],
) -> tuple[dict[int, str], list[dict[int, int]]]:
    """Give structures of the same name the same value.

    A structure keeps the value of the first volume that names it, unless another one has that
    already. Values of a volume without any names mean what they mean in the volumes with names.

    Args:
        volumes: the values above 0 that each label holds, in the order of precedence.

    Returns:
        Name of each common value, and per volume the common value of each own value.
    """
    names: dict[int, str] = {}
    places: dict[str, int] = {}
    common: dict[LabelledVolume, dict[int, int]] = {}
    # those without names come last, so that all names are known
    for volume in sorted(volumes, key=lambda volume: not volume.names):
        own: dict[int, int] = {}
        for value in volumes[volume]:
            if not volume.names and value in names:
                own[value] = value
                continue
            name = volume.names.get(value, f"structure_{value}").strip()
            folded = fold_name(name)
            if folded not in places:
                places[folded] = value if value not in names else max(names) + 1
                names[places[folded]] = name
            own[value] = places[folded]
        common[volume] = own
    return names, [common[volume] for volume in volumes]
