"""Panels of a decision of IPSNet: prototypes' maps, confident cells, self-learned answer.

IPS-style, reconstructed from the abstract of Song et al., Artificial Intelligence in Medicine 2025.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fsmis_components.evaluation.decision_pictures.ipsnet_decision import (
    IpsDecision,
    SelfLearned,
    decide_ips,
)
from fsmis_components.evaluation.decision_pictures.marks import BACKGROUND, FOREGROUND, Cells
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
from fsmis_components.evaluation.decision_pictures.slice_pair import LabelledSlice, SlicePair

KEYS = ((FOREGROUND, "confident foreground"), (BACKGROUND, "confident background"))
NOTE = (
    "IPS-style network, reconstructed from the abstract of Song et al., Artif. Intell. Med. 2025. "
    "Margins are foreground minus background."
)
ANSWERS = Scale("PuOr_r", "margin by prototypes", around_zero=True)


def ips_row(network: Any, pair: SlicePair) -> Row:
    """Segment the query slice of a pair by an IPS-style network and describe how."""
    decision = decide_ips(network, pair)
    remark = "no self-learning"
    if decision.own is not None:
        trusted = "trusted" if decision.own.trusted else "not trusted"
        remark = f"the query's own prototypes {trusted}"
    return Row(pair, ips_panels(decision), decision.dice, remark)


def ips_panels(decision: IpsDecision) -> tuple[Panel, ...]:
    """From the labelled slice to the query's mask; what the network lacks has no panel."""
    support, query = decision.pair.support, decision.pair.query
    label, wanted = label_plane(support), label_plane(query)

    def answer(title: str, margin: np.ndarray) -> Panel:
        return map_panel(title, margin, ANSWERS, wanted)

    area = f"{place(support)}: {label.sum()} px"
    panels = [
        Panel("Support slice\nand its label", area, support, label),
        answer("Coarse guidance G,\nby the support alone", decision.guidance),
        answer("Mean prototypes, mid\nlevel: S_mean", decision.mean_map),
    ]
    if decision.peak_map is not None:
        panels += [
            answer("Peak prototypes, high\nlevel: S_peak", decision.peak_map),
            answer("Both blended: P1,\nthe first mask", decision.intermediate),
        ]
    final = "Final margin,\nno self-learning"
    if decision.own is not None:
        panels += _own_panels(decision.own, query)
        final = "Final margin,\nby the decoder"
    return (
        *panels,
        map_panel(final, decision.decided, MARGIN, wanted),
        mask_panel(query, decision.decided, decision.dice),
    )


def _own_panels(own: SelfLearned, query: LabelledSlice) -> list[Panel]:
    """The query's confident cells and what its own prototypes answer."""
    wanted = label_plane(query)
    cells = (Cells(own.background, BACKGROUND, 0.4), Cells(own.foreground, FOREGROUND))
    answer = map_panel("Self-learned\nprototypes: S_self", own.margin, ANSWERS, wanted)
    return [
        Panel(
            "Confident cells of P1:\nthe query's prototypes",
            f"{own.num_cells[0]} foreground, {own.num_cells[1]} background",
            query,
            wanted,
            cells,
        ),
        answer
        if own.trusted
        else replace(answer, note="area unlike the support's:\nown prototypes not used"),
    ]
