"""The figures that a reader takes home: one method's, and where all methods stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from fsmis_components.evaluation.records import WHOLE_VOLUME
from fsmis_components.evaluation.report.figures import PROTOCOL_COLOURS
from fsmis_components.evaluation.report.series import Results, Series, group_dice, group_gap

Interval = tuple[float, float, float]  # mean, lower and upper bound


@dataclass(frozen=True)
class Headline:
    """Mean Dice of the method that stands at the top.

    Attributes:
        series: the method.
        told_protocol: the protocol that tells the extent; None where there is none.
        told: Dice under it.
        gap: price of not being told, on the structures and supports that have both.
        blind: Dice over the whole volume.
        floor_told: that of the mask copy.
        floor_blind: that of the mask copy.
    """

    series: Series
    told_protocol: str | None
    told: float | None
    gap: float | None
    blind: float
    floor_told: float | None
    floor_blind: float | None


def find_headline(results: Results, summary: Mapping[str, Any]) -> Headline | None:
    """The best method by whole-volume Dice, the mask copy only where nothing else was measured.

    Methods with an EP1 figure go before those without one (EP1 is defined for three labelled
    slices only), so that the gap can be shown.

    Returns:
        None where nothing was scored over the whole volume.
    """
    blind = {series: _mean(summary, series, WHOLE_VOLUME) for series in results.series}
    told = {
        series: next(
            (
                (protocol, value)
                for protocol in results.told
                if (value := _mean(summary, series, protocol)) is not None
            ),
            None,
        )
        for series in results.series
    }
    candidates = [series for series in results.series if blind[series] is not None]
    if not candidates:
        return None
    # of equals the first, as max keeps it
    best = max(
        candidates,
        key=lambda series: (not series.is_floor, told[series] is not None, blind[series] or 0.0),
    )
    protocol, value = told[best] or (None, None)
    floor = _floor_for(best, results)
    return Headline(
        series=best,
        told_protocol=protocol,
        told=value,
        gap=group_gap(summary, best, protocol) if protocol else None,
        blind=blind[best] or 0.0,
        floor_told=_mean(summary, floor, protocol) if floor and protocol else None,
        floor_blind=blind[floor] if floor else None,
    )


def cards(headline: Headline, results: Results) -> str:
    """Three or four large numbers, each with what it means."""
    entries = []
    if headline.told is not None and headline.told_protocol is not None:
        name = results.protocol_name(headline.told_protocol)
        entries.append((headline.told_protocol, headline.told, name, "told where each organ lies"))
    entries.append((WHOLE_VOLUME, headline.blind, "whole volume", "must find the organs itself"))
    if headline.gap is not None:
        entries.append(("gap", headline.gap, "gap", "price of not being told"))
    floor = headline.floor_told if headline.told is not None else headline.floor_blind
    if floor is not None:
        meaning = "copied masks, image never read"
        if headline.told is not None and headline.floor_blind is not None:
            meaning += f" (whole volume: {headline.floor_blind:.1f})"
        entries.append(("floor", floor, "floor", meaning))
    return '<div class="cards">' + "".join(_card(*entry) for entry in entries) + "</div>"


def standings(results: Results, summary: Mapping[str, Any]) -> str:
    """A line per series from 0 to 100: whole volume, the told protocols, the gap between them."""
    lines = []
    for series in results.series:
        measured = {
            protocol: value
            for protocol in (*results.told, WHOLE_VOLUME)
            if (value := group_dice(summary, series, protocol)) is not None
        }
        if measured:
            lines.append(_standing(results, series, measured))
    scale = "".join(f'<span style="left:{tick}%">{tick}</span>' for tick in range(0, 101, 20))
    return (
        f'<div class="standings">{"".join(lines)}'
        f'<div class="standing"><span></span><div class="scale">{scale}</div></div></div>'
    )


def legend(results: Results) -> str:
    """The colours of the protocols."""
    return "".join(
        f'<span class="chip"><i class="dot" style="background:{PROTOCOL_COLOURS[protocol]}"></i>'
        f"{escape(results.protocol_name(protocol))}</span>"
        for protocol in (*results.told, WHOLE_VOLUME)
    )


def _standing(results: Results, series: Series, measured: Mapping[str, Interval]) -> str:
    means = [mean for mean, _, _ in measured.values()]
    marks = [f'<b style="{_span(min(means), max(means))}"></b>']
    numbers = []
    for protocol, (mean, low, high) in measured.items():
        colour = PROTOCOL_COLOURS[protocol]
        title = f"{results.protocol_name(protocol)} {mean:.1f} ({low:.1f} to {high:.1f})"
        marks.append(f'<u style="{_span(low, high)};background:{colour}"></u>')
        marks.append(
            f'<i class="dot" style="left:{mean:.2f}%;background:{colour}" '
            f'title="{escape(title)}"></i>'
        )
        numbers.append(f'<em style="border-color:{colour}">{mean:.1f}</em>')
    kind = "standing floor" if series.is_floor else "standing"
    return (
        f'<div class="{kind}"><span>{escape(results.name(series))}'
        f'<small>{" ".join(numbers)}</small></span><div class="track">{"".join(marks)}</div></div>'
    )


def _span(low: float, high: float) -> str:
    return f"left:{low:.2f}%;width:{max(0.0, high - low):.2f}%"


def _card(kind: str, value: float, name: str, meaning: str) -> str:
    colour = PROTOCOL_COLOURS.get(kind, "")
    style = f' style="border-color:{colour}"' if colour else ""
    return (
        f'<div class="card"{style}><strong>{value:.1f}</strong>'
        f"<span>{escape(name)}</span><small>{escape(meaning)}</small></div>"
    )


def _floor_for(series: Series, results: Results) -> Series | None:
    """The mask copy with the same support, or with the same kind of labelled slices, or any."""
    floors = [other for other in results.series if other.is_floor]
    floors.sort(key=lambda o: (o.labelled != series.labelled, o.shots != series.shots))
    return None if series.is_floor or not floors else floors[0]


def _mean(summary: Mapping[str, Any], series: Series, protocol: str) -> float | None:
    dice = group_dice(summary, series, protocol)
    return None if dice is None else dice[0]
