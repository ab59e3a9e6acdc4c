"""Which methods can be drawn, by their networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.decision_pictures import cow, ipsnet
from fsmis_components.evaluation.decision_pictures.figure import Key
from fsmis_components.evaluation.decision_pictures.panels import Row
from fsmis_components.evaluation.decision_pictures.slice_pair import SlicePair
from fsmis_components.support.support_pack import network_method


@dataclass(frozen=True)
class Method:
    """How the decisions of a network are drawn.

    Attributes:
        row: segments the query slice of a pair and describes how.
        keys: colours of the legend.
        note: for the heading; empty: none.
    """

    row: Callable[[Any, SlicePair], Row]
    keys: tuple[Key, ...]
    note: str = ""


METHODS = {
    "CoW": Method(cow.cow_row, cow.KEYS),
    "IPSNet": Method(ipsnet.ips_row, ipsnet.KEYS, ipsnet.NOTE),
}


def method_of(network: Any, source: str) -> tuple[str, Method]:
    """Name and method of a network.

    Args:
        network: any network of the contract.
        source: where it comes from, for the message.

    Raises:
        DataError: the decisions of its method cannot be drawn.
    """
    name = network_method(network)
    if name not in METHODS:
        raise DataError(
            f"{source}: decisions of {name} cannot be drawn; name a bundle of "
            f"{' or '.join(METHODS)}."
        )
    return name, METHODS[name]
