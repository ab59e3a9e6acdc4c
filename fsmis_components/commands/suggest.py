"""`fsmis suggest`: which unlabelled scan of a folder to label next, and which of its slices."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsmis_components.bundle import Bundle
from fsmis_components.commands.command_line import yaml_value
from fsmis_components.commands.front_door import METHOD
from fsmis_components.data.atomic import atomic_write_text, check_writable
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.safe_text import csv_table
from fsmis_components.encoding import FeatureCache, ScanEncoder
from fsmis_components.selection import Describer, Preprocessing, Proposal, propose
from fsmis_components.support.source import SupportSource

_SHOWN = 10  # scans that are printed


def suggest(
    scans: Path,
    labelled: Path | None = None,
    num: int = 1,
    output: Path = Path("suggestion"),
    method: str = METHOD,
    slices: int | None = None,
    weights: str = "shipped",
    **knobs: str,
) -> None:
    """Propose which scan to label next, and which of its slices.

    Without labelled scans it is the one that most resembles all others, else what these cover
    least. Each scan is encoded once and kept in OUTPUT/encoded.

    Args:
        scans: folder of scans; labels are not opened.
        labelled: folder of what is labelled already, or a stored pack.
        num: scans to propose.
        output: receives suggestion.csv and suggestion.json.
        method: whose network looks: ssl_alpnet, cow, ipsnet, or the folder of a bundle.
        slices: slices to label: of each structure that a support shows (3), of a scan without (6).
        weights: a file in place of the shipped ones, or untrained.
        knobs: any knob of the bundle's inference.json, as --spatial_size 128.
    """
    if num < 1 or (slices is not None and slices < 1):
        raise DataError(f"--num, --slices: expected at least 1, got {num} and {slices}.")
    check_writable(output)
    cases = find_cases(scans, labels="never")
    given = {name: yaml_value(value, f"--{name}") for name, value in knobs.items()}
    bundle = Bundle(method, weights, knobs=given)
    encoding: dict[str, Any] = {"batch_size": bundle.inferer.batch_size, "amp": bundle.inferer.amp}
    if labelled is None:
        pack, preprocessing = None, Preprocessing.of_first(cases, bundle.geometry)
    else:
        places = (None, labelled) if labelled.is_file() else (labelled, None)
        source = SupportSource(*places, **{**bundle.geometry, **encoding})
        pack = source.resolve(bundle.network)
        preprocessing = Preprocessing.of_support(pack)
    encoder = ScanEncoder(bundle.network, **encoding)
    describer = Describer(encoder, preprocessing, FeatureCache(output / "encoded"))
    proposal = propose(describer, cases, pack=pack, num=num, num_slices=slices, progress=True)
    if not proposal.scans:
        raise DataError(f"{scans}: all scans are in the support already; name another folder.")
    facts = {
        "bundle": bundle.root.resolve().name,
        "weights": weights,
        "dataset_dir": str(scans),
        "support": None if pack is None else [profile.name for profile in pack.profiles],
        "preprocessing": asdict(preprocessing),
    }
    write_proposal(output, proposal, facts)
    print(proposal_text(proposal), end="")


def proposal_text(proposal: Proposal) -> str:
    """The proposed scans with their slices, and the first of the others."""
    lines = []
    for scan in proposal.scans:
        if scan.chosen:
            lines.append(f"label {scan.image}")
            lines += [
                f"  {what}: slices {_numbers(slices, first=1)} of {scan.depth} "
                f"(in the file {scan.file_axis} = {_numbers(scan.file_slices[what], first=0)})"
                for what, slices in scan.slices.items()
            ]
    lines += [
        "",
        "gain: how much more like a labelled scan the others are with this one (their lower",
        "quartile); similarity: how like the others it is. Scans of close gains serve alike:",
        f"{'rank':>4}  {'gain':>6}  {'similarity':>10}  scan",
    ]
    for rank, scan in enumerate(proposal.scans[:_SHOWN], start=1):
        lines.append(f"{rank:>4}  {scan.gain:6.3f}  {scan.similarity:10.3f}  {scan.name}")
    if len(proposal.scans) > _SHOWN:
        lines.append(f"      and {len(proposal.scans) - _SHOWN} more")
    lines += [f"left out: {message}" for message in proposal.left_out.values()]
    return "\n".join(lines) + "\n"


def write_proposal(folder: Path, proposal: Proposal, facts: Mapping[str, Any]) -> None:
    """Write `suggestion.json` (slices from 0), with the facts, and `.csv` (from 1, as overlays)."""
    scans = [asdict(scan) for scan in proposal.scans]
    content = {"facts": dict(facts), "scans": scans, "left_out": proposal.left_out}
    columns = ["rank", "scan", "proposed", "gain", "similarity", "slices", "label_slices"]
    rows: list[list[object]] = [[*columns]]
    for rank, scan in enumerate(proposal.scans, start=1):
        wanted = [f"{what}: {_numbers(slices, first=1)}" for what, slices in scan.slices.items()]
        figures = [f"{scan.gain:.4f}", f"{scan.similarity:.4f}"]
        rows.append([rank, scan.name, scan.chosen or "", *figures, scan.depth, "; ".join(wanted)])
    with writing(folder):
        atomic_write_text(folder / "suggestion.json", json.dumps(content, indent=2) + "\n")
        atomic_write_text(folder / "suggestion.csv", csv_table(rows))


def _numbers(slices: Sequence[int], first: int) -> str:
    return ", ".join(str(index + first) for index in slices)
