"""The page `table.md`: what `summarise` found, as tables that can be cited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fsmis_components.evaluation.pipe_table import pipe_table
from fsmis_components.evaluation.records import ORACLE, WHOLE_VOLUME
from fsmis_components.evaluation.summary import EP1_RULES, UNTRAINED

_NONE = "–"
_SETTINGS = {
    "1": "Setting 1: test structures may occur, unlabelled, in training slices",
    "2-any": "Setting 2 (`any`): training slices that hold any test structure were removed",
    "2-all": "Setting 2 (`all`): only training slices that hold all test structures were removed",
    "given": "Weights as given: what they were trained on is not known here",
    UNTRAINED: "Nothing trained beforehand",
}
_OTHER_FIGURES = {
    "nsd": "NSD 2 mm, %",
    "hd95_mm": "HD95, mm",
    "precision": "precision, %",
    "recall": "recall, %",
    "extent_error": "extent error, slices",
    "false_positive_ml": "false positives, ml",
}
_RULES = {
    "ep1-alp": (
        "`ep1-alp`: folds are disjoint, the support of a fold is the next scan (choice c: c "
        "scans further); all slices from the first to the last that hold the structure are scored, "
        "in thirds of that range."
    ),
    "ep1-qnet": (
        "`ep1-qnet`: folds overlap by one scan, scan c of a fold (choice c, from 0) supports the "
        "others; only slices that hold the structure are scored, in three equal parts. Some cases "
        "are tested in two folds and some in none, so not all cases of a mean are independent."
    ),
}
_DEFINITIONS = (
    "EP1 is told by the query's label where a structure begins and ends; the whole volume is what "
    "a user gets.",
    "Whole volume: label-blind, scored on all voxels of the scan's own grid. Oracle extent: the "
    "same method within the true range of slices. Floor: `mask_copy` lays the support's masks on "
    "the query and never reads the image.",
    "Labelled slices: those of the support that the method may use, per structure.",
    "A case is the unit: choices of support are averaged per case first, then its structures, then "
    "cases. Brackets: 95 % percentile-bootstrap interval of the mean over cases. ±: standard "
    "deviation over cases.",
    "Two methods are compared on the cases, structures and supports that both have: two-sided "
    "Wilcoxon signed-rank test, cases without a difference discarded, not corrected for the number "
    "of tests; with fewer than 6 cases p cannot fall below 0.05.",
    "NSD: share of both surfaces, by area, within 2 mm of the other one. HD95: larger of the two "
    "95th percentiles of distances between border voxels. Extent error: slices that lie in one of "
    "the two ranges from first to last slice, not in both.",
    "Structure absent in label and prediction: Dice, NSD, precision, recall 100, HD95 0. Absent "
    "only in the label: Dice, NSD, precision 0, recall 100. Nothing predicted of a structure that "
    "is there: Dice, NSD, precision, recall 0. HD95 of these two is the diagonal of the volume. "
    "EP1 has no slice to score where a structure is absent: undefined, counted, in no mean.",
)
_PROSE = ("failures", "dropped_slices")  # keys of the run that have sections of their own


class _Line(NamedTuple):
    """What one line of a table stands for."""

    method: str
    setting: str
    labelled: str
    shots: int


def markdown_table(summary: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page as Markdown: same summary and run, same bytes.

    Args:
        summary: from `summarise`.
        run: what else the page carries. "failures" (sentences) and "dropped_slices" (label group
            to {"dropped": n, "of": m}) get sections; every other key that holds something is
            printed as it stands.
    """
    page = _Page(summary)
    parts = [
        "# Benchmark: Dice with the extent told and on the whole volume",
        _headline(page.rules),
    ]
    for setting in page.settings:
        lines = page.lines_of(setting)
        parts += [
            f"## {_SETTINGS.get(setting, f'Setting {setting}')}",
            *page.dice_section(lines),
            *page.fold_section(lines),
            *page.structure_sections(lines),
            *page.figures_section(lines),
            *page.comparison_sections(setting),
            *page.support_section(lines),
        ]
    parts += ["## Notes", _listed([*_DEFINITIONS, *(_RULES[rule] for rule in page.rules)])]
    if run.get("failures"):
        parts += ["## Failures", "These are in no table.", _listed(map(str, run["failures"]))]
    if run.get("dropped_slices"):
        dropped = [
            f"{group}: {count['dropped']} of {count['of']} slices"
            for group, count in run["dropped_slices"].items()
        ]
        parts += ["## Slices dropped from training in Setting 2", _listed(dropped)]
    provenance = [
        _fact(key, value)
        for key, value in run.items()
        if key not in _PROSE and value not in (None, "", [], {})
    ]
    if provenance:
        parts += ["## Provenance", "\n".join(provenance)]
    return "\n\n".join(parts) + "\n"


class _Page:
    """Finds the numbers of a line and lays them out.

    Args:
        summary: from `summarise`.
    """

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self.groups = {(_line(group), group["protocol"]): group for group in summary["groups"]}
        self.gaps = {(_line(gap), gap["told"]): gap for gap in summary["wv_gaps"]}
        self.comparisons = summary["comparisons"]
        self.lines = list(dict.fromkeys(line for line, _ in self.groups))
        found = {protocol for _, protocol in self.groups}
        self.rules = [rule for rule in EP1_RULES if rule in found]
        settings = {line.setting for line in self.lines}
        self.settings = sorted(settings - {UNTRAINED}) or sorted(settings)

    def lines_of(self, setting: str) -> list[_Line]:
        """Lines of a setting; what was not trained belongs to every setting."""
        return [line for line in self.lines if line.setting in (setting, UNTRAINED)]

    def dice_section(self, lines: Sequence[_Line]) -> list[str]:
        """Dice under every protocol; each rule of EP1 has columns of its own."""
        gap_rules = self.rules or [ORACLE]
        titles = [
            *(f"EP1 (`{rule}`)" for rule in self.rules),
            "oracle extent",
            "whole volume",
            *(f"WV gap{f' (`{rule}`)' if len(gap_rules) > 1 else ''}" for rule in gap_rules),
        ]
        rows = []
        for line in lines:
            protocols = (*self.rules, ORACLE, WHOLE_VOLUME)
            cells = [self._dice_cell(line, protocol) for protocol in protocols]
            rows.append([*_names(line), *cells, *(self._gap(line, rule) for rule in gap_rules)])
        note = (
            "WV gap: Dice with the extent told minus whole volume, case by case, on the structures "
            "and supports that both have; told by EP1, or by the oracle (marked) where EP1 has no "
            "figure."
        )
        return ["### Dice in %, mean over structures [95 % interval]", _table(titles, rows), note]

    def fold_section(self, lines: Sequence[_Line]) -> list[str]:
        """Dice of each fold, EP1 and whole volume under each other."""
        found = [
            (protocol, line, group)
            for protocol in (*self.rules, WHOLE_VOLUME)
            for line, group in self._under(lines, protocol)
        ]
        folds = sorted({int(fold) for _, _, group in found for fold in group["fold_dice"]})
        if len(folds) < 2:
            return []
        rows = []
        for protocol, line, group in found:
            dice = [group["fold_dice"].get(str(fold)) for fold in folds]
            cells = [_NONE if value is None else f"{value:.1f}" for value in dice]
            rows.append([*_names(line), _protocol(protocol), *cells])
        heads = ("method", "labelled slices", "protocol")
        table = _table([f"fold {fold}" for fold in folds], rows, heads)
        return ["### Dice in % per fold, mean over structures", table]

    def structure_sections(self, lines: Sequence[_Line]) -> list[str]:
        """Dice per structure, a table for each rule of EP1 and for the whole volume."""
        parts = []
        for protocol in (*self.rules, WHOLE_VOLUME):
            groups = self._under(lines, protocol)
            names = list(dict.fromkeys(name for _, group in groups for name in group["structures"]))
            rows = []
            for line, group in groups:
                found = [group["structures"].get(name) for name in names]
                cells = [_mean_sd(entry["dice"]) if entry else _NONE for entry in found]
                rows.append([*_names(line), *cells, _mean_sd(group["mean"]["dice"])])
            if rows:
                title = f"### Dice in % per structure, {_protocol(protocol)} (mean ± sd)"
                parts += [title, _table([*names, "mean"], rows)]
        return parts

    def figures_section(self, lines: Sequence[_Line]) -> list[str]:
        """The other figures of the whole volume."""
        rows = [
            [*_names(line), *(_mean_sd(group["mean"][figure]) for figure in _OTHER_FIGURES)]
            for line, group in self._under(lines, WHOLE_VOLUME)
        ]
        title = "### Other figures, whole volume, mean over structures (mean ± sd)"
        return [title, _table(list(_OTHER_FIGURES.values()), rows)] if rows else []

    def comparison_sections(self, setting: str) -> list[str]:
        """Paired comparisons, a table for each rule of EP1 and for the whole volume."""
        parts = []
        for protocol in (*self.rules, WHOLE_VOLUME):
            own, untrained = (
                [e for e in self.comparisons if (e["setting"], e["protocol"]) == (kind, protocol)]
                for kind in (setting, UNTRAINED)
            )
            rows = [
                [
                    entry["first"],
                    entry["second"],
                    _labelled(entry["labelled"], entry["shots"]),
                    _interval(entry["mean_difference"], entry["low"], entry["high"]),
                    _p_value(entry["p_value"]),
                    str(entry["count"]),
                ]
                for entry in (own if setting == UNTRAINED else own + untrained)
            ]
            if rows:
                heads = ["first", "second", "labelled slices"]
                titles = ["first minus second [95 % interval]", "Wilcoxon p", "cases"]
                title = f"### Dice of two methods, case by case, {_protocol(protocol)}"
                parts += [title, _table(titles, rows, heads)]
        return parts

    def support_section(self, lines: Sequence[_Line]) -> list[str]:
        """How many cases, folds and supports the lines rest on."""
        rows = []
        for line in lines:
            own = {protocol: group for (of, protocol), group in self.groups.items() if of == line}
            group = own.get(WHOLE_VOLUME) or next(iter(own.values()))
            spread = own.get(WHOLE_VOLUME, {}).get("support_choice_range")
            undefined = [
                own[rule]["mean"]["undefined"] if rule in own else _NONE for rule in self.rules
            ]
            cells = [
                _cases(group),
                ", ".join(map(str, group["folds"])),
                ", ".join(map(str, group["choices"])),
                f"{spread['lowest']:.1f} to {spread['highest']:.1f}" if spread else _NONE,
                group["mean"]["absent"],
                *undefined,
            ]
            rows.append([*_names(line), *map(str, cells)])
        titles = [
            "cases",
            "folds",
            "choices of support",
            "whole-volume Dice, worst to best choice",
            "cases without some structure",
            *(f"of these undefined in EP1 (`{rule}`)" for rule in self.rules),
        ]
        return ["### What the lines rest on", _table(titles, rows)]

    def _under(
        self, lines: Sequence[_Line], protocol: str
    ) -> list[tuple[_Line, Mapping[str, Any]]]:
        return [
            (line, self.groups[line, protocol]) for line in lines if (line, protocol) in self.groups
        ]

    def _dice_cell(self, line: _Line, protocol: str) -> str:
        group = self.groups.get((line, protocol))
        dice = group["mean"]["dice"] if group else {"mean": None, "low": None, "high": None}
        return _interval(dice["mean"], dice["low"], dice["high"])

    def _gap(self, line: _Line, rule: str) -> str:
        told = rule if (line, rule) in self.gaps else ORACLE
        gap = self.gaps.get((line, told))
        if gap is None:
            return _NONE
        mark = " (oracle)" if told == ORACLE else ""
        return _interval(gap["mean_difference"], gap["low"], gap["high"]) + mark


def _headline(rules: Sequence[str]) -> str:
    told = " and ".join(f"`{rule}`" for rule in rules)
    return (
        "Few-shot segmentation, mean over cases. "
        + (f"EP1 by the rule {told}. " if rules else "EP1 was not run. ")
        + "Research figures; not a medical device."
    )


def _line(entry: Mapping[str, Any]) -> _Line:
    return _Line(entry["method"], entry["setting"], entry["labelled"], entry["shots"])


def _names(line: _Line) -> list[str]:
    return [line.method, _labelled(line.labelled, line.shots)]


def _labelled(labelled: str, shots: int) -> str:
    scans = "1 scan" if shots == 1 else f"{shots} scans"
    if labelled == "all":
        return f"all of {scans}"
    return f"3 of {scans}" if shots == 1 else f"3 each of {scans}"


def _protocol(protocol: str) -> str:
    names = {ORACLE: "oracle extent", WHOLE_VOLUME: "whole volume"}
    return names.get(protocol, f"EP1 (`{protocol}`)")


def _cases(group: Mapping[str, Any]) -> str:
    """Number of cases; per structure where one of them is not scored in all."""
    total = group["mean"]["cases"]
    counts = {name: entry["cases"] for name, entry in group["structures"].items()}
    if all(count == total for count in counts.values()):
        return str(total)
    return f"{total} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    return _NONE if mean is None else f"{mean:z.1f} [{low:z.1f}, {high:z.1f}]"


def _mean_sd(figure: Mapping[str, float | None]) -> str:
    return _NONE if figure["mean"] is None else f"{figure['mean']:z.1f} ± {figure['sd']:z.1f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    heads: Sequence[str] = ("method", "labelled slices"),
) -> str:
    """A table whose first columns are text and whose others are numbers."""
    return pipe_table([*heads, *titles], rows, range(len(heads)))


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {' '.join(sentence.split())}" for sentence in sentences)


def _fact(key: str, value: Any) -> str:
    """A list item, with items of its own where the value has parts."""
    if isinstance(value, Mapping):
        parts = [f"  - {name}: `{part}`" for name, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [f"  - `{part}`" for part in value]
    else:
        return f"- {key}: `{value}`"
    return "\n".join([f"- {key}:", *parts])
