"""Propose which unlabelled scan of a folder to label next, and which of its slices.

    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
        --support_dir labelled --num 2

The first finds the scan that most resembles all others; the second what a support that exists
covers least. No label of the folder is opened. Each scan is encoded once and kept in
OUTPUT_DIR/encoded, so that a second call, or one that goes on after an interruption, is quick. The
output folder gets suggestion.json and suggestion.csv.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fsmis_components.commands.command_line import command, pairs
from fsmis_components.data.atomic import atomic_write_text, check_writable
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.safe_text import csv_table
from fsmis_components.encoding import FeatureCache, ScanEncoder
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.selection import Describer, Preprocessing, Proposal, propose
from fsmis_components.support.source import SupportSource
from fsmis_components.support.support_pack import SupportPack

_SHOWN = 10  # scans that are printed


def suggest(
    bundle: Path,
    dataset_dir: Path,
    support_dir: Path | None = None,
    support_pack: Path | None = None,
    num: int = 1,
    slices: int | None = None,
    weights: str | None = None,
    output_dir: Path = Path("suggestion"),
    knobs: str | None = None,
    threads: int | None = None,
) -> None:
    """Propose which unlabelled scan of a folder to label next, and which of its slices.

    Args:
        bundle: folder of the bundle whose network looks.
        dataset_dir: folder of scans; labels are not opened.
        support_dir: folder of scans that are labelled already.
        support_pack: or a pack of them.
        num: scans to propose.
        slices: slices to label: of each structure that a support shows (3), of a scan without (6).
        weights: a file in place of the shipped ones, or untrained.
        output_dir: receives suggestion.json and suggestion.csv.
        knobs: KNOB=VALUE, knobs of inference.json.
        threads: threads of torch.
    """
    if num < 1 or (slices is not None and slices < 1):
        raise DataError(f"--num, --slices: expected at least 1, got {num} and {slices}.")
    if threads:
        torch.set_num_threads(threads)
    check_writable(output_dir)
    cases = find_cases(dataset_dir, labels="never")
    subject = BundleSubject(bundle, weights, pairs(knobs, "knobs"))
    pack = _support(subject, support_dir, support_pack)
    preprocessing = (
        Preprocessing.of_first(cases, subject.geometry)
        if pack is None
        else Preprocessing.of_support(pack)
    )
    cache = FeatureCache(output_dir / "encoded")
    encoder = ScanEncoder(subject.network, subject.batch_size, subject.amp)
    describer = Describer(encoder, preprocessing, cache)
    proposal = propose(describer, cases, pack=pack, num=num, num_slices=slices, progress=True)
    if not proposal.scans:
        raise DataError(
            f"{dataset_dir}: all scans are in the support already; name another folder."
        )
    facts = {
        "bundle": subject.name,
        "dataset_dir": str(dataset_dir),
        "support": None if pack is None else [profile.name for profile in pack.profiles],
        "preprocessing": preprocessing.to_dict(),
    }
    write_proposal(output_dir, proposal, facts)
    print(proposal_text(proposal), end="")


def _support(subject: BundleSubject, folder: Path | None, pack: Path | None) -> SupportPack | None:
    """What is labelled already; None: nothing."""
    if folder is None and pack is None:
        return None
    source = SupportSource(
        folder, pack, **subject.geometry, batch_size=subject.batch_size, amp=subject.amp
    )
    return source.resolve(subject.network)


def proposal_text(proposal: Proposal) -> str:
    """The proposed scans with their slices, and the first of the others."""
    lines = []
    for scan in proposal.scans:
        if not scan.chosen:
            continue
        lines.append(f"label {scan.image}")
        for what, slices in scan.slices.items():
            lines.append(
                f"  {what}: slices {_numbers(slices, first=1)} of {scan.depth} "
                f"(in the file {scan.file_axis} = {_numbers(scan.file_slices[what], first=0)})"
            )
    lines.append("")
    lines.append(
        "gain: how much more like a labelled scan the others are with this one (their lower"
    )
    lines.append(
        "quartile); similarity: how like the others it is. Scans of close gains serve alike:"
    )
    lines.append(f"{'rank':>4}  {'gain':>6}  {'similarity':>10}  scan")
    for rank, scan in enumerate(proposal.scans[:_SHOWN], start=1):
        lines.append(f"{rank:>4}  {scan.gain:6.3f}  {scan.similarity:10.3f}  {scan.name}")
    if len(proposal.scans) > _SHOWN:
        lines.append(f"      and {len(proposal.scans) - _SHOWN} more")
    lines += [f"left out: {message}" for message in proposal.left_out.values()]
    return "\n".join(lines) + "\n"


def write_proposal(folder: Path, proposal: Proposal, facts: Mapping[str, Any]) -> None:
    """Write `suggestion.json` (slices from 0) and `.csv` (from 1, as in overlays).

    At least one scan is proposed; `facts` say how, as JSON values. What cannot be written is a
    `DataError`.
    """
    scans = [asdict(scan) for scan in proposal.scans]
    content = {"facts": dict(facts), "scans": scans, "left_out": proposal.left_out}
    rows: list[list[object]] = [
        ["rank", "scan", "proposed", "gain", "similarity", "slices", "label_slices"]
    ]
    for rank, scan in enumerate(proposal.scans, start=1):
        wanted = [f"{what}: {_numbers(slices, first=1)}" for what, slices in scan.slices.items()]
        figures = [f"{scan.gain:.4f}", f"{scan.similarity:.4f}"]
        rows.append([rank, scan.name, scan.chosen or "", *figures, scan.depth, "; ".join(wanted)])
    with writing(folder):
        atomic_write_text(folder / "suggestion.json", json.dumps(content, indent=2) + "\n")
        atomic_write_text(folder / "suggestion.csv", csv_table(rows))


def _numbers(slices: Sequence[int], first: int) -> str:
    return ", ".join(str(index + first) for index in slices)


def main(arguments: list[str] | None = None) -> int:
    """Print and write a suggestion; return 0, or 1 where there is none."""
    return command(suggest, arguments)
