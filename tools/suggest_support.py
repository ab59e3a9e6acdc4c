"""Propose which unlabelled scan of a folder to label next, and which of its slices.

    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
        --support_dir labelled --num 2

The first finds the scan that most resembles all others; the second what a support that exists
covers least. No label of the folder is opened. Each scan is encoded once and kept in
OUTPUT_DIR/encoded, so that a second call, or one that goes on after an interruption, is quick. The
output folder gets suggestion.json, suggestion.csv and suggestion.png.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.subjects.bundle import UNTRAINED, BundleSubject
from fsmis_components.selection import (
    Describer,
    Preprocessing,
    proposal_text,
    propose,
    write_proposal,
)
from fsmis_components.support import FeatureCache
from fsmis_components.support.source import SupportSource
from fsmis_components.support.support_pack import SupportPack


def main(arguments: list[str] | None = None) -> int:
    """Print and write a suggestion; return 0, or 1 where there is none."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        _run(options)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    check_writable(options.output_dir)
    cases = find_cases(options.dataset_dir, labels="never")
    subject = BundleSubject(options.bundle, options.weights, dict(map(_knob, options.knobs)))
    pack = _support(subject, options)
    preprocessing = (
        Preprocessing.of_first(cases, subject.geometry)
        if pack is None
        else Preprocessing.of_support(pack)
    )
    cache = FeatureCache(options.output_dir / "encoded")
    describer = Describer(subject.network, preprocessing, cache, subject.batch_size, subject.amp)
    proposal = propose(
        describer,
        cases,
        pack=pack,
        num=options.num,
        num_slices=options.slices,
        progress=True,
    )
    if not proposal.scans:
        raise DataError(
            f"{options.dataset_dir}: all scans are in the support already; name another folder."
        )
    facts = {
        "bundle": subject.name,
        "dataset_dir": str(options.dataset_dir),
        "support": None if pack is None else [profile.name for profile in pack.profiles],
        "preprocessing": preprocessing.to_dict(),
    }
    write_proposal(options.output_dir, proposal, facts)
    print(proposal_text(proposal), end="")


def _support(subject: BundleSubject, options: argparse.Namespace) -> SupportPack | None:
    """What is labelled already; None: nothing."""
    if not options.support_dir and not options.support_pack:
        return None
    source = SupportSource(
        options.support_dir,
        options.support_pack,
        **subject.geometry,
        batch_size=subject.batch_size,
        amp=subject.amp,
    )
    return source.resolve(subject.network)


def _knob(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise DataError(f"--knobs: expected KNOB=VALUE, got {text}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise DataError(f"--knobs: {text} cannot be read ({error}); write YAML.") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(name: str, text: str, **kind: Any) -> None:
        parser.add_argument(name, help=text, **kind)

    add("--bundle", "folder of the bundle whose network looks", type=Path, required=True)
    add("--dataset_dir", "folder of scans; labels are not opened", type=Path, required=True)
    add("--support_dir", "folder of scans that are labelled already", type=Path)
    add("--support_pack", "or a pack of them", type=Path)
    add("--num", "scans to propose (1)", type=_positive, default=1)
    text = "slices to label: of each structure that a support shows (3), of a scan without one (6)"
    add("--slices", text, type=_positive)
    add("--weights", f"a file in place of the shipped ones, or {UNTRAINED}")
    add("--output_dir", "(suggestion)", type=Path, default=Path("suggestion"))
    add("--knobs", "knobs of inference.json", nargs="*", default=[], metavar="KNOB=VALUE")
    add("--threads", "threads of torch", type=_positive)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
