"""The page `table.md`: what `summarise` found, as tables that can be cited."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd

from fsmis_components.evaluation.records import ORACLE, WHOLE_VOLUME
from fsmis_components.evaluation.summary import EP1_RULES, UNTRAINED

NONE = "–"
SETTINGS = {
    "1": "Setting 1: test structures may occur, unlabelled, in training slices",
    "2-any": "Setting 2 (`any`): training slices that hold any test structure were removed",
    "2-all": "Setting 2 (`all`): only training slices that hold all test structures were removed",
    "given": "Weights as given: what they were trained on is not known here",
    UNTRAINED: "Nothing trained beforehand",
}
OTHER_FIGURES = {
    "nsd": "NSD 2 mm, %",
    "hd95_mm": "HD95, mm",
    "precision": "precision, %",
    "recall": "recall, %",
    "extent_error": "extent error, slices",
    "false_positive_ml": "false positives, ml",
}
GAP_NOTE = (
    "WV gap: Dice with the extent told minus whole volume, case by case, on the structures and "
    "supports that both have; told by EP1, or by the oracle (marked) where EP1 has no figure."
)
LINE = ["method", "setting", "labelled", "shots"]
HEADS = ["method", "labelled slices"]


def markdown_table(summary: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page as Markdown: same summary and run, same bytes.

    Args:
        summary: from `summarise`.
        run: what else the page carries. "failures" (sentences) and "dropped_slices" (label group
            to {"dropped": n, "of": m}) get sections; every other key that holds something is
            printed as it stands.
    """
    groups = pd.DataFrame(summary["groups"], columns=[*LINE, "protocol", *_PARTS])
    gaps = pd.DataFrame(summary["wv_gaps"], columns=[*LINE, "told", *_INTERVAL])
    rules = [rule for rule in EP1_RULES if rule in set(groups.protocol)]
    trained = sorted({*groups.setting} - {UNTRAINED}) or sorted({*groups.setting})
    settings = []
    for setting in trained:
        # what was not trained belongs to every setting
        own = groups[groups.setting.isin([setting, UNTRAINED])]
        sections = [
            _dice_section(own, gaps, rules),
            _fold_section(own, rules),
            *(_structure_section(own, protocol) for protocol in (*rules, WHOLE_VOLUME)),
            _figures_section(own),
            *(
                _comparison_section(summary["comparisons"], setting, protocol)
                for protocol in (*rules, WHOLE_VOLUME)
            ),
            _support_section(own, rules),
        ]
        title = SETTINGS.get(setting, f"Setting {setting}")
        settings.append({"title": title, "sections": list(filter(None, sections))})
    facts = {
        key: value
        for key, value in run.items()
        if key not in ("failures", "dropped_slices") and value not in (None, "", [], {})
    }
    page = environment().get_template("table.md")
    told = {"failures": [], "dropped_slices": {}, **run}
    text = page.render(settings=settings, rules=rules, run=told, facts=facts)
    return text.rstrip("\n") + "\n"


def pipe_table(
    titles: Sequence[str], rows: Iterable[Sequence[object]], text: Container[int] = (0,)
) -> str:
    """A table as Markdown, without a line break at its end.

    Args:
        titles: of the columns.
        rows: cells of each row, in the order of the titles; a bar in a cell does not end it.
        text: numbers of the columns that hold text; the others hold numbers, set to the right.
    """
    rule = ["---" if column in text else "---:" for column in range(len(titles))]
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in [titles, rule, *rows])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def environment() -> jinja2.Environment:
    """Templates of the benchmark; what goes into HTML is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("fsmis_components.evaluation"),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    found.filters["one_line"] = lambda text: " ".join(str(text).split())
    return found


_PARTS = ("folds", "choices", "structures", "mean", "fold_dice", "support_choice_range")
_INTERVAL = ("mean_difference", "low", "high")


def _section(
    title: str,
    titles: Iterable[str],
    rows: Sequence[Sequence[str]],
    heads: Sequence[str] = HEADS,
    note: str = "",
) -> dict[str, str] | None:
    """A table whose first columns are text and whose others are numbers; None without a line."""
    if not rows:
        return None
    table = pipe_table([*heads, *titles], rows, range(len(heads)))
    return {"title": title, "table": table, "note": note}


def _by_line(groups: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    """For each line of a table its groups, by protocol."""
    return {
        key: {group.protocol: group for group in own.itertuples()}
        for key, own in groups.groupby(LINE, sort=False)
    }


def _dice_section(
    groups: pd.DataFrame, gaps: pd.DataFrame, rules: Sequence[str]
) -> dict[str, str] | None:
    """Dice under every protocol; each rule of EP1 has columns of its own."""
    gap_rules = [*rules] or [ORACLE]
    lost = {
        tuple(gap[[*LINE, "told"]]): _interval(*gap[[*_INTERVAL]]) for _, gap in gaps.iterrows()
    }
    rows = []
    for line, group in _by_line(groups).items():
        cells = []
        for protocol in (*rules, ORACLE, WHOLE_VOLUME):
            dice = group[protocol].mean["dice"] if protocol in group else {}
            known = dice.get("mean") is not None
            cells.append(_interval(dice["mean"], dice["low"], dice["high"]) if known else NONE)
        for rule in gap_rules:
            oracle = lost.get((*line, ORACLE))
            marked = NONE if oracle is None else f"{oracle} (oracle)"
            cells.append(marked if rule == ORACLE else lost.get((*line, rule), marked))
        rows.append([*_names(line), *cells])
    titles = [
        *(f"EP1 (`{rule}`)" for rule in rules),
        "oracle extent",
        "whole volume",
        *(f"WV gap{f' (`{rule}`)' if len(gap_rules) > 1 else ''}" for rule in gap_rules),
    ]
    return _section("Dice in %, mean over structures [95 % interval]", titles, rows, note=GAP_NOTE)


def _fold_section(groups: pd.DataFrame, rules: Sequence[str]) -> dict[str, str] | None:
    """Dice of each fold, EP1 and whole volume under each other."""
    shown = [
        group
        for protocol in (*rules, WHOLE_VOLUME)
        for group in groups[groups.protocol == protocol].itertuples()
    ]
    folds = sorted({int(fold) for group in shown for fold in group.fold_dice})
    if len(folds) < 2:
        return None
    rows = [
        [
            *_names(group[1:5]),
            protocol_title(group.protocol),
            *(_number(group.fold_dice.get(str(fold))) for fold in folds),
        ]
        for group in shown
    ]
    titles = [f"fold {fold}" for fold in folds]
    return _section("Dice in % per fold, mean over structures", titles, rows, [*HEADS, "protocol"])


def _structure_section(groups: pd.DataFrame, protocol: str) -> dict[str, str] | None:
    shown = list(groups[groups.protocol == protocol].itertuples())
    names = list(dict.fromkeys(name for group in shown for name in group.structures))
    rows = [
        [
            *_names(group[1:5]),
            *(_mean_sd(group.structures.get(name), "dice") for name in names),
            _mean_sd(group.mean, "dice"),
        ]
        for group in shown
    ]
    title = f"Dice in % per structure, {protocol_title(protocol)} (mean ± sd)"
    return _section(title, [*names, "mean"], rows)


def _figures_section(groups: pd.DataFrame) -> dict[str, str] | None:
    rows = [
        [*_names(group[1:5]), *(_mean_sd(group.mean, figure) for figure in OTHER_FIGURES)]
        for group in groups[groups.protocol == WHOLE_VOLUME].itertuples()
    ]
    title = "Other figures, whole volume, mean over structures (mean ± sd)"
    return _section(title, OTHER_FIGURES.values(), rows)


def _comparison_section(
    comparisons: Sequence[Mapping[str, Any]], setting: str, protocol: str
) -> dict[str, str] | None:
    rows = [
        [
            entry["first"],
            entry["second"],
            labelled_title(entry["labelled"], entry["shots"]),
            _interval(entry["mean_difference"], entry["low"], entry["high"]),
            "< 0.001" if entry["p_value"] < 0.001 else f"{entry['p_value']:.3f}",
            str(entry["count"]),
        ]
        for kind in dict.fromkeys([setting, UNTRAINED])
        for entry in comparisons
        if (entry["setting"], entry["protocol"]) == (kind, protocol)
    ]
    titles = ["first minus second [95 % interval]", "Wilcoxon p", "cases"]
    title = f"Dice of two methods, case by case, {protocol_title(protocol)}"
    return _section(title, titles, rows, ["first", "second", "labelled slices"])


def _support_section(groups: pd.DataFrame, rules: Sequence[str]) -> dict[str, str] | None:
    """How many cases, folds and supports the lines rest on."""
    rows = []
    for line, own in _by_line(groups).items():
        group = own.get(WHOLE_VOLUME) or next(iter(own.values()))
        spread = group.support_choice_range if WHOLE_VOLUME in own else None
        cells = [
            _cases(group),
            ", ".join(map(str, group.folds)),
            ", ".join(map(str, group.choices)),
            f"{spread['lowest']:.1f} to {spread['highest']:.1f}"
            if isinstance(spread, dict)
            else NONE,
            group.mean["absent"],
            *(own[rule].mean["undefined"] if rule in own else NONE for rule in rules),
        ]
        rows.append([*_names(line), *map(str, cells)])
    titles = [
        "cases",
        "folds",
        "choices of support",
        "whole-volume Dice, worst to best choice",
        "cases without some structure",
        *(f"of these undefined in EP1 (`{rule}`)" for rule in rules),
    ]
    return _section("What the lines rest on", titles, rows)


def protocol_title(protocol: str) -> str:
    """What tables and legends call a protocol."""
    names = {ORACLE: "oracle extent", WHOLE_VOLUME: "whole volume"}
    return names.get(protocol, f"EP1 (`{protocol}`)")


def labelled_title(labelled: str, shots: int) -> str:
    """Slices of the support that the method may use, in words."""
    scans = "1 scan" if shots == 1 else f"{shots} scans"
    if labelled == "all":
        return f"all of {scans}"
    return f"3 of {scans}" if shots == 1 else f"3 each of {scans}"


def _names(line: Sequence[Any]) -> list[str]:
    return [line[0], labelled_title(line[2], line[3])]


def _cases(group: Any) -> str:
    """Number of cases; per structure where one of them is not scored in all."""
    total = group.mean["cases"]
    counts = {name: entry["cases"] for name, entry in group.structures.items()}
    if all(count == total for count in counts.values()):
        return str(total)
    return f"{total} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:z.1f} [{low:z.1f}, {high:z.1f}]"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _mean_sd(entry: Mapping[str, Any] | None, figure: str) -> str:
    if entry is None or entry[figure]["mean"] is None:
        return NONE
    return f"{entry[figure]['mean']:z.1f} ± {entry[figure]['sd']:z.1f}"
