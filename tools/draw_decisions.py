r"""Draw how a network decides on a real case, one row per structure.

    python tools/draw_decisions.py --bundle_root bundles/cow --weights shipped --dataset_dir D \
        --case 8 --support 5 --output cow.png
    python tools/draw_decisions.py --bundle_root bundles/ipsnet --weights W.pt --dataset_dir D \
        --case 8 --support 5 --structure 3 --output ipsnet.png

The bundle's network says which method it is. Of CoW is drawn, from left to right: what the support
slice's mean prototype finds on its own slice, the pixels it gets wrong, where hard prototypes were
drawn, the query's similarity to the mean prototype alone, the two fused maps, their difference, and
the mask beside the label. Of IPSNet (IPS-style, reconstructed from the abstract of Song et al.,
Artif. Intell. Med. 2025): the labelled slice, the margins of the coarse guidance map, of mean and
of peak prototypes and of both, the cells that give the query's own prototypes, the margin of these,
the decoder's, and the mask beside the label.

The slices are those of the middle third of a structure under the rule ep1-alp. The query's label is
read to choose the slice, to be drawn and for the Dice; it does not reach the network. Printed are
each structure's Dice on its slice, what is remarkable, and the picture's path.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from fsmis_components.data.cases import find_cases, select_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.intensity import Normalisation, resolve_modality
from fsmis_components.evaluation.decision_pictures import choose_pairs, draw_rows, method_of
from fsmis_components.evaluation.subjects.bundle import UNTRAINED, BundleSubject
from fsmis_components.support.support_set import label_names, support_set_of_cases


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture; return 0, or 1 where something cannot be used."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        draw(options)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def draw(options: argparse.Namespace) -> None:
    """Write the picture; print the Dice of each structure and where the picture lies.

    Raises:
        DataError: no such case, structure, slice or bundle, or no weights that fit.
    """
    cases = find_cases(options.dataset_dir, section="training")
    case, support_case = (select_cases(cases, n)[0] for n in (options.case, options.support))
    number = _slice_number(options.slice)
    support = support_set_of_cases(
        [support_case],
        structures=_value(options.structure, "--structure") if options.structure else None,
        names=label_names(options.dataset_dir),
        source=str(support_case.image),
    )
    subject = _subject(options)
    name, method = method_of(subject.network, options.bundle_root)
    geometry = dict(subject.geometry)
    image = support.scans[0].image
    modality = resolve_modality(image, geometry.pop("modality"))
    pairs = choose_pairs(
        support, case, choose_slice_grid(image, **geometry), Normalisation(modality), number
    )
    rows = [method.row(subject.network, pair) for pair in pairs]
    note = (
        f"{subject.name}, slices of {geometry['spatial_size']} pixels. The query's label chose its "
        "slice and is drawn, the network never sees it. All rows share the scales."
    )
    title = f"How {name} decides: case {case.name} by the support {support_case.name}"
    note = "\n".join(filter(None, [note, method.note]))
    picture = draw_rows(options.output, rows, method.keys, title, note)
    for row in rows:
        remark = f", {row.remark}" if row.remark else ""
        print(f"{row.pair.structure.name}: Dice {row.dice:.1f} %{remark}")
    print(picture)


def _subject(options: argparse.Namespace) -> BundleSubject:
    weights = None if options.weights == "shipped" else options.weights
    if weights not in (None, UNTRAINED) and not Path(weights).is_file():
        raise DataError(
            f"--weights: {weights} is no file; name one, or 'shipped', or '{UNTRAINED}'."
        )
    return BundleSubject(options.bundle_root, weights, dict(map(_knob, options.knobs)))


def _slice_number(text: str) -> int | None:
    """The slice from 0, as it is asked for from 1; None for auto."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise DataError(f"--slice: expected auto or a number from 1, got {text!r}.")
    return int(text) - 1


def _knob(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise DataError(f"--knobs: expected KNOB=VALUE, got {text}.")
    return name, _value(value, "--knobs")


def _value(text: str, option: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{option}: {text} cannot be read ({error}); write YAML.") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle_root", required=True, help="folder of the bundle")
    parser.add_argument("--weights", required=True, help=f"shipped, {UNTRAINED} or a file")
    parser.add_argument("--dataset_dir", required=True, help="folder of labelled scans")
    parser.add_argument("--case", required=True, help="the scan to segment")
    parser.add_argument("--support", required=True, help="the labelled scan")
    parser.add_argument("--structure", help="names, label values, or {name: value}; default: all")
    parser.add_argument("--slice", default="auto", help="of the query, from 1; default: auto")
    parser.add_argument("--output", required=True, type=Path, help="the picture, a PNG")
    parser.add_argument(
        "--knobs", nargs="*", default=[], metavar="KNOB=VALUE", help="knobs of inference.json"
    )
    parser.add_argument("--threads", type=int, help="threads of torch")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
