"""What the pictures of a report are drawn from: Dice per series, protocol, structure and case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsmis_components.evaluation.records import (
    ORACLE,
    UNDEFINED,
    WHOLE_VOLUME,
    CaseRecord,
    Row,
    SliceCounts,
)
from fsmis_components.evaluation.summary import (
    EP1_RULES,
    FLOOR,
    UNTRAINED,
)
from fsmis_components.reporting.pages import counted
from fsmis_components.support.support_set import PALETTE

Unit = tuple[int, str]  # fold and case: what is counted, as in the summary


@dataclass(frozen=True)
class Series:
    """What is drawn as one line, box or panel: a row of the table.

    Attributes:
        method: as in `Row`, and so are the others.
        setting: "1", "2-any", "2-all", "given" or "-".
        labelled: "sections" or "all".
        shots: number of support scans.
    """

    method: str
    setting: str
    labelled: str
    shots: int

    @property
    def is_floor(self) -> bool:
        """Whether it is the mask copy, which methods are measured against."""
        return self.method == FLOOR


class Results:
    """Dice of all rows that have one. Several choices of support are averaged per unit first.

    Args:
        records: finished cases.

    Attributes:
        series: in the order of the records, floors last.
        structures: names in the order of their label values.
        colours: "#rrggbb" per structure.
        told: protocols that tell the extent and are set against the whole volume: the rules of
            EP1 that occur, or else the oracle.
    """

    def __init__(self, records: Sequence[CaseRecord]) -> None:
        self.records = records
        rows = [row for record in records for row in record.rows]
        found = list(dict.fromkeys(_series(row) for row in rows))
        self.series = sorted(found, key=lambda series: series.is_floor)  # stable
        values = sorted({(row.value, row.structure) for row in rows})
        self.structures = list(dict.fromkeys(name for _, name in values))
        self.colours = {
            name: PALETTE[index % len(PALETTE)] for index, name in enumerate(self.structures)
        }
        protocols = {row.protocol for row in rows}
        rules = [rule for rule in EP1_RULES if rule in protocols]
        self.told = rules or [protocol for protocol in (ORACLE,) if protocol in protocols]
        self.cases = sorted({row.case for row in rows})
        gathered: dict[tuple[Series, str, str], dict[Unit, list[float]]] = {}
        for row in rows:
            if row.status != UNDEFINED:
                key = (_series(row), row.protocol, row.structure)
                gathered.setdefault(key, {}).setdefault(_unit(row), []).append(row.dice)
        self._dice = {key: _means(units) for key, units in gathered.items()}

    def dice(self, series: Series, protocol: str, structure: str) -> dict[Unit, float]:
        """Percent per unit."""
        return self._dice.get((series, protocol, structure), {})

    def unit_means(self, series: Series, protocol: str) -> dict[Unit, float]:
        """Percent per unit, mean over its structures."""
        gathered: dict[Unit, list[float]] = defaultdict(list)
        for structure in self.structures:
            for unit, value in self.dice(series, protocol, structure).items():
                gathered[unit].append(value)
        return _means(gathered)

    def pairs(self, series: Series, told: str, structure: str) -> dict[Unit, tuple[float, float]]:
        """Dice per unit of a structure, told the extent and label-blind, from the same support."""
        first: dict[Unit, list[float]] = defaultdict(list)
        second: dict[Unit, list[float]] = defaultdict(list)
        for record in self.records:
            rows = {
                row.protocol: row
                for row in record.rows
                if row.structure == structure and _series(row) == series
                if row.status != UNDEFINED
            }
            if told in rows and WHOLE_VOLUME in rows:
                first[_unit(rows[told])].append(rows[told].dice)
                second[_unit(rows[told])].append(rows[WHOLE_VOLUME].dice)
        means, blind = _means(first), _means(second)
        return {unit: (means[unit], blind[unit]) for unit in means}

    def counts(self, series: Series, protocol: str) -> Iterator[tuple[Row, SliceCounts]]:
        """The rows of a protocol with their voxels per slice."""
        for record in self.records:
            for row, counts in zip(record.rows, record.counts, strict=True):
                if _series(row) == series and row.protocol == protocol:
                    yield row, counts

    def name(self, series: Series) -> str:
        """The method, and as much of the rest as tells it from the other series."""
        parts = [series.method]
        if _differ(self.series, "setting") and series.setting != UNTRAINED:
            parts.append(setting_name(series.setting))
        if _differ(self.series, "labelled"):
            parts.append(labelled_name(series.labelled))
        if _differ(self.series, "shots"):
            parts.append(counted(series.shots, "scan"))
        return ", ".join(parts)

    def full_name(self, series: Series) -> str:
        """The method with its setting and support."""
        parts = [series.method]
        if series.setting != UNTRAINED:
            parts.append(setting_name(series.setting))
        parts.append(f"{labelled_name(series.labelled)} of {counted(series.shots, 'scan')}")
        return ", ".join(parts)

    def protocol_name(self, protocol: str) -> str:
        """What legends call a protocol; a rule of EP1 is named where both occur."""
        both = len(self.told) > 1
        names = {
            "ep1-alp": "EP1 (ALPNet's rule)" if both else "EP1",
            "ep1-qnet": "EP1 (Q-Net's rule)" if both else "EP1",
            ORACLE: "oracle extent",
            WHOLE_VOLUME: "whole volume",
        }
        return names[protocol]


def group_dice(
    summary: Mapping[str, Any], series: Series, protocol: str
) -> tuple[float, float, float] | None:
    """Mean Dice over structures and its 95 % interval from the summary; None where undefined."""
    for group in summary["groups"]:
        if _series_of(group) == series and group["protocol"] == protocol:
            dice = group["mean"]["dice"]
            if dice["mean"] is not None:
                return dice["mean"], dice["low"], dice["high"]
    return None


def group_gap(summary: Mapping[str, Any], series: Series, told: str) -> float | None:
    """Dice with the extent told minus whole-volume Dice, from the summary; None where undefined."""
    for gap in summary["wv_gaps"]:
        if _series_of(gap) == series and gap["told"] == told:
            return gap["mean_difference"]
    return None


def setting_name(setting: str) -> str:
    """A setting in words."""
    return "weights as given" if setting == "given" else f"Setting {setting}"


def labelled_name(labelled: str) -> str:
    """A kind of labelled slices in words."""
    return {"sections": "3 labelled slices", "all": "all slices"}.get(labelled, labelled)


def _series(row: Row) -> Series:
    return Series(row.method, row.setting, row.labelled, row.shots)


def _series_of(entry: Mapping[str, Any]) -> Series:
    return Series(entry["method"], entry["setting"], entry["labelled"], entry["shots"])


def _unit(row: Row) -> Unit:
    return row.fold, row.case


def _means(gathered: Mapping[Unit, Sequence[float]]) -> dict[Unit, float]:
    return {unit: float(np.mean(values)) for unit, values in gathered.items()}


def _differ(series: Sequence[Series], attribute: str) -> bool:
    return len({getattr(entry, attribute) for entry in series} - {UNTRAINED}) > 1
