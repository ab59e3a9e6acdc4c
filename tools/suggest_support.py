"""Propose which unlabelled scan of a folder to label next, and which of its slices.

    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
    python tools/suggest_support.py --bundle bundles/ssl_alpnet --dataset_dir unlabelled
        --support_dir labelled --num 2

The first finds the scan that most resembles all others; the second what a support that exists
covers least. No label of the folder is opened. Each scan is encoded once and kept in
OUTPUT_DIR/looks, so that a second call, or one that goes on after an interruption, is quick. The
output folder gets suggestion.json, suggestion.csv and suggestion.png.
"""

import sys
from pathlib import Path

import torch
from tqdm import tqdm

from command import command, pairs
from fsmis_components.data.atomic import atomic_write_text, check_writable
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.volumes import load_image
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.inferers.suggest import (
    LookRule,
    LookStore,
    ScanLook,
    compare_scans,
    csv_text,
    json_text,
    look_at_folder,
    printed,
    save_picture,
    suggest,
)
from fsmis_components.support.source import SupportSource
from fsmis_components.support.support_pack import SupportPack

OF_STRUCTURE = 3  # what the methods ask for
OF_SCAN = 6  # where nothing is known of structures, so that most are met twice


def propose(
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
        output_dir: receives suggestion.json, suggestion.csv and suggestion.png.
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
    if pack is None:
        rule = LookRule.of_first(load_image(cases[0].image), subject.geometry)
    else:
        rule = LookRule.of_support(pack)
    network, amp = subject.network, subject.amp
    store = LookStore(output_dir / "looks", network, rule, amp)
    found = look_at_folder(network, cases, rule, store, batch_size=subject.batch_size, amp=amp)
    if not found.looks:
        raise DataError(
            f"{dataset_dir}: no scan could be used: {'; '.join(found.failures.values())}"
        )
    labelled = ScanLook.of_support(pack) if pack else []
    found = found.without(labelled)
    if not found.looks:
        raise DataError(
            f"{dataset_dir}: all scans are in the support already; name another folder."
        )
    looks = [*found.looks, *labelled]
    likeness = compare_scans(looks, tqdm(range(len(looks)), desc="comparing", unit="scan"))
    num_slices = slices or (OF_SCAN if pack is None else OF_STRUCTURE)
    ranked = suggest(found.cases, looks, likeness, pack, num, num_slices)
    facts = {
        "bundle": subject.name,
        "dataset_dir": str(dataset_dir),
        "support": None if pack is None else [profile.name for profile in pack.profiles],
        "rule": rule.to_dict(),
    }
    folder = output_dir
    try:
        atomic_write_text(folder / "suggestion.json", json_text(ranked, found.failures, facts))
        atomic_write_text(folder / "suggestion.csv", csv_text(ranked))
        save_picture(folder / "suggestion.png", ranked, looks, likeness.similarity)
    except OSError as error:
        raise unwritable(folder, error) from error
    print(printed(ranked, found.failures), end="")


def _support(subject: BundleSubject, folder: Path | None, pack: Path | None) -> SupportPack | None:
    """What is labelled already; None: nothing."""
    if folder is None and pack is None:
        return None
    source = SupportSource(
        folder, pack, **subject.geometry, batch_size=subject.batch_size, amp=subject.amp
    )
    return source.resolve(subject.network)


def main(arguments: list[str] | None = None) -> int:
    """Print and write a suggestion; return 0, or 1 where there is none."""
    return command(propose, arguments)


if __name__ == "__main__":
    sys.exit(main())
