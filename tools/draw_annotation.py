r"""Draw the pictures of the annotator's page, from made-up scans of `phantom.py` alone.

    python tools/draw_annotation.py --bundle_root bundles/ssl_alpnet \
        --output_dir apps/few_shot/pictures

The session is the page's: one scan is labelled, the others are segmented by it, the one with the
lowest expected Dice is corrected, and the others are segmented again; at last a scan is proposed.
Inference is that of the server; the truth of the made-up scans is drawn dashed and measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, display_plane
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.inferers.suggest import (
    LookRule,
    LookStore,
    ScanLook,
    compare_scans,
    look_at_folder,
    save_picture,
    suggest,
)
from fsmis_components.support.labelled_volume import LabelledVolume
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_request import SupportRequest
from phantom import SHAPE, STRUCTURES, draw_subject, write_subject

SEED = 1
NAMES = {value: STRUCTURES[value] for value in (1, 2)}
COLOURS = {1: "#e6550d", 2: "#31a354"}
ORDERS = ("RAS", "LPS", "RAS", "LIP", "RAS", "LPS")
SLICES = 4  # of a scan, in a row


@dataclasses.dataclass(frozen=True)
class Result:
    """What the server says of one scan: mask values and expected Dice by value; measured Dice."""

    mask: np.ndarray
    expected: dict[int, float]
    dice: dict[int, float]


class Session:
    """Made-up scans and the bundle that segments them.

    Args:
        folder: receives scan_1, scan_2 and so on and their truth.
        bundle_root: the bundle.
        count: number of scans.
        shape: voxels of a scan.
    """

    def __init__(
        self,
        folder: Path,
        bundle_root: Path,
        count: int = len(ORDERS),
        shape: tuple[int, int, int] = SHAPE,
    ) -> None:
        self.folder = folder
        self.subject = BundleSubject(bundle_root)
        self.numbers = range(1, count + 1)
        for number, order in zip(self.numbers, ORDERS, strict=False):
            drawn = draw_subject(SEED, number, shape)
            label = np.where(np.isin(drawn.label, list(NAMES)), drawn.label, 0).astype(np.uint8)
            drawn = dataclasses.replace(drawn, label=label)
            write_subject(drawn, self.path(number), self.path(number, "truth"), order)

    def path(self, number: int, kind: str = "scan") -> Path:
        """File of a scan or of its truth."""
        return self.folder / f"{kind}s" / f"scan_{number}.nii.gz"

    def image(self, number: int) -> Volume:
        """A scan."""
        return load_image(self.path(number))

    def truth(self, number: int) -> np.ndarray:
        """The values (X, Y, Z) that the scan was drawn with."""
        return np.asarray(load_image(self.path(number, "truth")).data).astype(np.uint8)

    def pack(self, labelled: Sequence[int]) -> SupportPack:
        """The support that the server makes of labelled scans."""
        volumes = tuple(
            LabelledVolume.of(f"scan_{k}", self.path(k), self.path(k, "truth"), NAMES)
            for k in labelled
        )
        request = SupportRequest("datastore", volumes, number_structures=True)
        return self.subject.inferer.support.answer(self.subject.network, request).pack

    def run(self, pack: SupportPack, number: int) -> Result:
        """Segment a scan."""
        found = self.subject.inferer.segment_volume(self.image(number), self.subject.network, pack)
        expected = dict(zip(NAMES, found.trust.expected_dice, strict=True))
        truth = self.truth(number)
        dice = {value: _dice(found.label == value, truth == value) for value in NAMES}
        return Result(found.label, expected, dice)


def main() -> int:
    """Write the pictures; return 0, or 1 where the bundle cannot be used."""
    options = _options()
    torch.set_num_threads(options.threads)
    try:
        with TemporaryDirectory() as folder:
            draw(Session(Path(folder), options.bundle_root), options.output_dir)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def draw(session: Session, output_dir: Path) -> None:
    """Go through the session and write five pictures."""
    pack = session.pack([1])
    results = {number: session.run(pack, number) for number in session.numbers if number != 1}
    worst = min(results, key=lambda number: min(results[number].expected.values()))
    second = session.pack([1, worst])
    again = {number: session.run(second, number) for number in results if number != worst}

    figure, rows = _grid(1)
    _draw_scan(rows[0], session, 1, pack.grid, session.truth(1))
    _save(figure, output_dir / "1_label.png", "What one labels: two structures in scan_1")

    shown = [number for number in results if number != worst][:2]
    figure, rows = _grid(len(shown))
    for row, number in zip(rows, shown, strict=True):
        _draw_scan(row, session, number, pack.grid, results[number].mask)
    title = "What comes back: " + " and ".join(f"scan_{n}" for n in shown) + ", by scan_1 alone"
    _save(figure, output_dir / "2_result.png", title)

    _draw_expected(output_dir / "3_look_first.png", results, worst)

    figure, rows = _grid(2)
    both = [(results[worst].mask, ", returned"), (session.truth(worst), ", corrected")]
    for row, (mask, what) in zip(rows, both, strict=True):
        _draw_scan(row, session, worst, pack.grid, mask, what, session.truth(worst))
    before = _mean([results[number] for number in again])
    after = _mean(list(again.values()))
    change = ", ".join(f"{NAMES[v]} {before[v]:.2f} to {after[v]:.2f}" for v in NAMES)
    title = f"scan_{worst} is corrected and submitted; mean Dice of the other scans: {change}"
    _save(figure, output_dir / "4_corrected.png", title)

    _draw_suggestion(session, pack, output_dir / "5_next_sample.png")
    for number, result in results.items():
        later = again[number].dice if number in again else "(corrected)"
        print(f"scan_{number}: expected {result.expected}, Dice {result.dice}, then {later}")


def _grid(rows: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(11, 2.75 * rows + 0.8), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, SLICES, squeeze=False)
    return figure, [list(row) for row in axes]


def _draw_scan(
    row: Sequence[Axes],
    session: Session,
    number: int,
    grid: SliceGrid,
    mask: np.ndarray,
    what: str = "",
    truth: np.ndarray | None = None,
) -> None:
    """Slices of a scan that hold a structure, with the outlines of a mask and of the truth."""
    image = session.image(number)
    view, mask_view = (SliceView(v, grid) for v in (image, Volume(mask, image.affine, None)))
    true_view = None if truth is None else SliceView(Volume(truth, image.affine, None), grid)
    held = np.flatnonzero(mask_view.labels(0, view.depth, list(NAMES)).any(-1).any(-1).any(1))
    places = np.linspace(0, len(held) - 1, SLICES + 2)[1:-1].round().astype(int)
    for axes, index in zip(row, held[places], strict=True):
        plane = view.slices(index, index + 1)[0, 0].numpy()
        axes.imshow(
            display_plane(plane), cmap="gray", vmin=plane.min(), vmax=np.quantile(plane, 0.999)
        )
        _outline(axes, mask_view, index, "solid")
        if true_view is not None:
            _outline(axes, true_view, index, "dashed")
        axes.set_title(f"scan_{number}{what}, slice {index + 1}", fontsize=8)
        axes.set_axis_off()


def _outline(axes: Axes, view: SliceView, index: int, style: str) -> None:
    planes = view.labels(index, index + 1, list(NAMES))[0].numpy()
    for colour, plane in zip(COLOURS.values(), planes, strict=True):
        if plane.any():
            colours = ["white"] if style == "dashed" else [colour]
            width = 0.8 if style == "dashed" else 1.6
            axes.contour(
                display_plane(plane), [0.5], colors=colours, linewidths=width, linestyles=style
            )


def _draw_expected(path: Path, results: Mapping[int, Result], worst: int) -> None:
    figure = Figure(figsize=(9, 3.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    order = sorted(results, key=lambda number: -min(results[number].expected.values()))
    for row, number in enumerate(order):
        for value, colour in COLOURS.items():
            offset = row + (0.12 if value == 1 else -0.12)
            expected, dice = results[number].expected[value], results[number].dice[value]
            axes.plot([expected, dice], [offset, offset], color=colour, lw=0.8)
            axes.plot(expected, offset, "o", color=colour)
            axes.plot(dice, offset, "o", mfc="white", mec=colour)
    names = [
        f"scan_{number}" + (" (look here first)" if number == worst else "") for number in order
    ]
    axes.set_yticks(range(len(order)), names)
    axes.set(xlim=(0.5, 1.0), xlabel="Dice: expected (filled), measured on made-up scans (hollow)")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path, "Where to look first: the lowest expected_dice of the answers")


def _draw_suggestion(session: Session, pack: SupportPack, path: Path) -> None:
    network, folder = session.subject.network, session.folder / "looks"
    rule = LookRule.of_support(pack)
    cases = find_cases(session.path(1).parent, labels="never")
    found = look_at_folder(network, cases, rule, LookStore(folder, network, rule), progress=False)
    labelled = ScanLook.of_support(pack)
    found = found.without(labelled)
    looks = [*found.looks, *labelled]
    likeness = compare_scans(looks)
    ranked = suggest(found.cases, looks, likeness, pack, 1, 3)
    save_picture(path, ranked, looks, likeness.similarity)


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10)
    handles = [Line2D([], [], color=COLOURS[v], lw=3, label=NAMES[v]) for v in NAMES]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    atomic_write(path, lambda unfinished: figure.savefig(unfinished, format="png", dpi=90))


def _mean(results: Sequence[Result]) -> dict[int, float]:
    return {value: float(np.mean([result.dice[value] for result in results])) for value in NAMES}


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1)), 3)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle_root", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="receives five PNG files")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
