"""What one run of the benchmark knows of a case: rows of figures, and counts along its slices."""

from __future__ import annotations

from dataclasses import dataclass, field

SCORED = "scored"
ABSENT = "absent"  # the query's label does not hold the structure
UNDEFINED = "undefined"  # EP1 has no slice to score where the structure is absent

ORACLE = "oracle"
WHOLE_VOLUME = "wv"

FIGURES = (
    "dice",
    "nsd",
    "hd95_mm",
    "precision",
    "recall",
    "extent_error",
    "false_positive_ml",
)


@dataclass(frozen=True)
class Row:
    """Figures of one structure of one case under one protocol: a line of `cases.csv`.

    Attributes:
        method: name of the subject.
        setting: that of the subject, see `Subject.setting`.
        fold: number of the fold.
        choice: which choice of support, from 0.
        shots: number K of support scans.
        support: names of the support scans, joined by "+".
        labelled: "sections" (three slices per structure and support scan) or "all" slices.
        protocol: "ep1-alp", "ep1-qnet", "oracle" or "wv".
        case: name of the query.
        structure: name of the structure.
        value: its label value.
        status: `SCORED`, `ABSENT` or `UNDEFINED`.
        dice: percent.
        nsd: normalised surface Dice at 2 mm, percent.
        hd95_mm: 95th percentile of the symmetric surface distance, mm.
        precision: percent.
        recall: percent.
        extent_error: slices that are in the predicted or in the true extent but not in both.
        false_positive_ml: millilitres predicted outside the label.
    """

    method: str
    setting: str
    fold: int
    choice: int
    shots: int
    support: str
    labelled: str
    protocol: str
    case: str
    structure: str
    value: int
    status: str
    dice: float
    nsd: float
    hd95_mm: float
    precision: float
    recall: float
    extent_error: float
    false_positive_ml: float


@dataclass(frozen=True)
class SliceCounts:
    """Voxels per slice of one row, so that Dice can be drawn along z.

    Attributes:
        overlap: voxels in prediction and label, one number per slice.
        predicted: voxels of the prediction.
        labelled: voxels of the label.
    """

    overlap: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class CaseRecord:
    """Everything that is kept of one case of one subject, fold and support.

    Attributes:
        rows: one per protocol, kind of labelled slices and structure.
        counts: the counts of each row, in the same order.
        image: path of the query's image.
        label: path of its label.
        masks: label maps that were saved, by "protocol/labelled", as paths in the results folder.
        seconds: wall-clock time.
        fingerprint: hash of the query's image and label.
        slice_axis: along which the counts run, see `SliceGrid`.
        message: why the case failed; empty for a finished one.
        mask_hashes: SHA-256 of the label maps, by their paths.
    """

    rows: list[Row]
    counts: list[SliceCounts]
    image: str
    label: str
    masks: dict[str, str]
    seconds: float
    fingerprint: str = ""
    slice_axis: int = 2
    message: str = ""
    mask_hashes: dict[str, str] = field(default_factory=dict)
