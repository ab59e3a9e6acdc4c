"""Panels of a decision of CoW: weak pixels, hard prototypes, fused maps (IJCAI 2025)."""

from __future__ import annotations

from typing import Any

from fsmis_components.evaluation.decision_pictures.cow_decision import CowDecision, decide_cow
from fsmis_components.evaluation.decision_pictures.marks import (
    BACKGROUND,
    FOREGROUND,
    FOUND,
    Area,
    Cells,
    Points,
)
from fsmis_components.evaluation.decision_pictures.panels import (
    MARGIN,
    Panel,
    Row,
    Scale,
    label_plane,
    map_panel,
    mask_panel,
    place,
)
from fsmis_components.evaluation.decision_pictures.slice_pair import SlicePair, dice

KEYS = (
    (FOREGROUND, "missed: weak foreground"),
    (BACKGROUND, "wrongly found: weak background"),
)
SIMILARITY = Scale("viridis", "cosine")
FUSED = Scale("cividis", "fused maps, unbounded: both on one scale")


def cow_row(network: Any, pair: SlicePair) -> Row:
    """Segment the query slice of a pair by a CoW network and describe how."""
    decision = decide_cow(network, pair)
    return Row(pair, cow_panels(decision), decision.dice)


def cow_panels(decision: CowDecision) -> tuple[Panel, ...]:
    """From the support's own slice to the query's mask."""
    support, query = decision.pair.support, decision.pair.query
    label, wanted = label_plane(support), label_plane(query)

    where, own = place(support), decision.self_predicted
    predicted: tuple[Area, ...] = ()
    if own is not None:
        where += f": Dice {dice(own, label):.1f} %"
        predicted = (Area(own, FOUND),)
    weak = (Cells(decision.missed, FOREGROUND), Cells(decision.false, BACKGROUND))
    missed, false = (int(mask.sum()) for mask in (decision.missed, decision.false))
    hard = (
        Points(decision.hard_background, label.shape, "^", BACKGROUND),
        Points(decision.hard_foreground, label.shape, "o", FOREGROUND),
    )
    drawn = len(decision.hard_foreground), len(decision.hard_background)
    places = f"at {drawn[0]} missed, {drawn[1]} wrong places" if any(drawn) else "at no place"
    return (
        Panel("Support slice: label\nand self-prediction", where, support, label, predicted),
        Panel(
            "Weak pixels: missed\nand wrongly found",
            f"{missed} px missed, {false} px wrong",
            support,
            label,
            weak,
        ),
        Panel("Where the hard proto-\ntypes were drawn", places, support, label, hard),
        map_panel(
            "Query: cosine to the\nmean prototype alone", decision.similarity, SIMILARITY, wanted
        ),
        map_panel("Foreground maps,\nfused into one", decision.foreground, FUSED, wanted),
        map_panel("Background maps,\nfused into one", decision.background, FUSED, wanted),
        map_panel("Margin: foreground\nminus background", decision.margin, MARGIN, wanted),
        mask_panel(query, decision.margin, decision.dice),
    )
