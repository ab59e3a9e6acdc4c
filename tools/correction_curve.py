"""Show Dice against the number of corrected scans of a folder, with labels in place of a person.

For example:
  python tools/correction_curve.py --bundle bundles/ssl_alpnet --dataset_dir data/acdc
      --support_ids patient001_frame01 --query_ids patient002_frame01,patient003_frame01
      --corrections 0,1 --features_dir features
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from fsmis_components.data.cases import find_cases, select_cases
from fsmis_components.data.errors import exit_on_data_error
from fsmis_components.evaluation.correction_curve import CurvePoint, correction_curve
from fsmis_components.evaluation.pipe_table import pipe_table
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.support import FeatureCache, load_support_set


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Mean Dice per structure, and of the scan that gained least, by the number of corrections."""
    names = list(dict.fromkeys(point.structure for point in points))
    first = min(point.corrected for point in points)
    rows = []
    for count in sorted({point.corrected for point in points}):
        means = [_mean(points, count, structure=name) for name in names]
        cases = dict.fromkeys(point.case for point in points)
        gains = [_mean(points, count, case=c) - _mean(points, first, case=c) for c in cases]
        numbers = [*means, _mean(points, count), min(gains)]
        rows.append([str(count), *(f"{number:.1f}" for number in numbers)])
    return pipe_table(["corrected scans", *names, "mean", "least gain of a scan"], rows)


def _mean(
    points: Sequence[CurvePoint], count: int, structure: str | None = None, case: str | None = None
) -> float:
    return float(
        np.mean(
            [
                point.dice
                for point in points
                if point.corrected == count
                and structure in (None, point.structure)
                and case in (None, point.case)
            ]
        )
    )


@exit_on_data_error
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", required=True, help="bundle folder")
    parser.add_argument("--weights", help="a weights file; default: the shipped weights")
    parser.add_argument("--dataset_dir", required=True, help="folder of labelled scans")
    parser.add_argument("--support_ids", required=True, help="the scans to begin with")
    parser.add_argument("--query_ids", required=True, help="the scans to segment and to correct")
    parser.add_argument("--corrections", default="0,1,2,3", help="numbers of corrected scans")
    parser.add_argument("--features_dir", required=True, help="where features are kept")
    given = parser.parse_args(argv)
    support = load_support_set(given.dataset_dir, support_ids=given.support_ids)
    queries = select_cases(find_cases(given.dataset_dir, labels="required"), given.query_ids)
    points = []
    counts = [int(number) for number in given.corrections.split(",")]
    subject = BundleSubject(given.bundle, given.weights)
    for point in correction_curve(
        subject, support, queries, counts, FeatureCache(given.features_dir)
    ):
        print(f"{point.case}, {point.corrected} corrected: {point.structure} {point.dice:.1f}")
        points.append(point)
    print(curve_table(points))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
