"""The page `table.md`: what `summarise` found, as tables that can be cited."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from fsmis_components.evaluation.records import ORACLE, WHOLE_VOLUME
from fsmis_components.evaluation.summary import EP1_RULES, UNTRAINED
from fsmis_components.reporting.pages import render

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
LINE = ("method", "setting", "labelled", "shots")
HEADS = ("method", "labelled slices")
Group = Mapping[str, Any]  # of `summarise`
Section = dict[str, str]


def markdown_table(summary: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The page as Markdown: same summary and run, same bytes.

    Args:
        summary: from `summarise`.
        run: what else the page carries. "failures" (sentences) and "dropped_slices" (label group
            to {"dropped": n, "of": m}) get sections; every other key that holds something is
            printed as it stands.
    """
    groups = summary["groups"]
    found = {group["protocol"] for group in groups}
    rules = [rule for rule in EP1_RULES if rule in found]
    known = sorted({group["setting"] for group in groups})
    settings = [
        {
            "title": SETTINGS.get(setting, f"Setting {setting}"),
            "sections": list(_sections(summary, setting, rules)),
        }
        for setting in [each for each in known if each != UNTRAINED] or known
    ]
    facts = {key: value for key, value in run.items() if value not in (None, "", [], {})}
    parts = {key: facts.pop(key, {}) for key in ("failures", "dropped_slices")}
    text = render("table.md", settings=settings, rules=rules, facts=facts, **parts)
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


def _sections(summary: Mapping[str, Any], setting: str, rules: Sequence[str]) -> Iterator[Section]:
    """The tables of a setting; what was not trained belongs to every setting."""
    groups = [group for group in summary["groups"] if group["setting"] in (setting, UNTRAINED)]
    # the groups of each line of a table, that of the whole volume always among them; `summarise`
    # has them beside each other
    lines = [
        {group["protocol"]: group for group in part}
        for _, part in groupby(groups, key=lambda group: tuple(group[key] for key in LINE))
    ]
    yield _dice_section(lines, summary["wv_gaps"], rules)
    of = {
        protocol: found
        for protocol in [*rules, WHOLE_VOLUME]
        if (found := [group for group in groups if group["protocol"] == protocol])
    }
    shown = [group for found in of.values() for group in found]
    folds = sorted({fold for group in shown for fold in group["fold_dice"]}, key=int)
    if len(folds) > 1:
        rows = [
            [*_heads(group), protocol_title(group["protocol"])]
            + [f"{dice[fold]:.1f}" if fold in dice else NONE for fold in folds]
            for group in shown
            for dice in [group["fold_dice"]]
        ]
        heads = [*HEADS, "protocol", *(f"fold {fold}" for fold in folds)]
        yield _section("Dice in % per fold, mean over structures", heads, rows, text=3)
    for protocol, found in of.items():
        names = list(dict.fromkeys(name for group in found for name in group["structures"]))
        rows = [
            [*_heads(group), *(_mean_sd(group["structures"].get(name)) for name in names)]
            + [_mean_sd(group["mean"])]
            for group in found
        ]
        title = f"Dice in % per structure, {protocol_title(protocol)} (mean ± sd)"
        yield _section(title, [*HEADS, *names, "mean"], rows)
    rows = [
        [*_heads(group), *(_mean_sd(group["mean"], figure) for figure in OTHER_FIGURES)]
        for group in of[WHOLE_VOLUME]
    ]
    title = "Other figures, whole volume, mean over structures (mean ± sd)"
    yield _section(title, [*HEADS, *OTHER_FIGURES.values()], rows)
    difference = "first minus second [95 % interval]"
    for protocol in of:
        rows = [
            [entry["first"], entry["second"], _labelled(entry), _interval(entry)]
            + ["< 0.001" if entry["p_value"] < 0.001 else f"{entry['p_value']:.3f}", entry["count"]]
            for kind in dict.fromkeys([setting, UNTRAINED])
            for entry in summary["comparisons"]
            if (entry["setting"], entry["protocol"]) == (kind, protocol)
        ]
        heads = ["first", "second", "labelled slices", difference, "Wilcoxon p", "cases"]
        title = f"Dice of two methods, case by case, {protocol_title(protocol)}"
        if rows:
            yield _section(title, heads, rows, text=3)
    yield _support_section(lines, rules)


def _section(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    text: int = 2,
    note: str = "",
) -> Section:
    """A table with its heading and a note below it; the first `text` columns hold text."""
    return {"title": title, "table": pipe_table(heads, rows, range(text)), "note": note}


def _dice_section(
    lines: Sequence[Mapping[str, Group]], gaps: Iterable[Mapping[str, Any]], rules: Sequence[str]
) -> Section:
    """Dice under every protocol; each rule of EP1 has columns of its own."""
    protocols, gap_rules = [*rules, ORACLE, WHOLE_VOLUME], rules or [ORACLE]
    lost = {(*(gap[key] for key in LINE), gap["told"]): _interval(gap) for gap in gaps}
    rows = []
    for line in lines:
        group = line[WHOLE_VOLUME]
        key = [group[name] for name in LINE]
        oracle = lost.get((*key, ORACLE))
        marked = NONE if oracle is None else f"{oracle} (oracle)"
        dice = [
            line[protocol]["mean"]["dice"] if protocol in line else {} for protocol in protocols
        ]
        row = [NONE if each.get("mean") is None else _interval(each, "mean") for each in dice]
        gained = [lost.get((*key, rule), marked) if rules else marked for rule in gap_rules]
        rows.append([*_heads(group), *row, *gained])
    of_rules = [f"WV gap (`{rule}`)" if len(gap_rules) > 1 else "WV gap" for rule in gap_rules]
    heads = [*HEADS, *map(protocol_title, protocols), *of_rules]
    title = "Dice in %, mean over structures [95 % interval]"
    return _section(title, heads, rows, note=GAP_NOTE)


def _support_section(lines: Sequence[Mapping[str, Group]], rules: Sequence[str]) -> Section:
    """How many cases, folds and supports the lines rest on."""
    rows = []
    for line in lines:
        group = line[WHOLE_VOLUME]
        choices = group.get("support_choice_range")
        rows.append(
            [
                *_heads(group),
                _cases(group),
                ", ".join(map(str, group["folds"])),
                ", ".join(map(str, group["choices"])),
                f"{choices['lowest']:.1f} to {choices['highest']:.1f}" if choices else NONE,
                group["mean"]["absent"],
                *(line[rule]["mean"]["undefined"] if rule in line else NONE for rule in rules),
            ]
        )
    heads = [*HEADS, "cases", "folds", "choices of support"]
    heads += ["whole-volume Dice, worst to best choice", "cases without some structure"]
    heads += [f"of these undefined in EP1 (`{rule}`)" for rule in rules]
    return _section("What the lines rest on", heads, rows)


def _heads(group: Group) -> list[str]:
    return [group["method"], _labelled(group)]


def _labelled(entry: Mapping[str, Any]) -> str:
    return labelled_title(entry["labelled"], entry["shots"])


def _cases(group: Group) -> str:
    """Number of cases; per structure where one of them is not scored in all."""
    total = group["mean"]["cases"]
    counts = {name: entry["cases"] for name, entry in group["structures"].items()}
    if all(count == total for count in counts.values()):
        return str(total)
    return f"{total} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def _interval(entry: Mapping[str, Any], mean: str = "mean_difference") -> str:
    return f"{entry[mean]:z.1f} [{entry['low']:z.1f}, {entry['high']:z.1f}]"


def _mean_sd(entry: Mapping[str, Any] | None, figure: str = "dice") -> str:
    if entry is None or entry[figure]["mean"] is None:
        return NONE
    return f"{entry[figure]['mean']:z.1f} ± {entry[figure]['sd']:z.1f}"
