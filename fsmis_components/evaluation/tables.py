"""The page `table.md`: what `summarise` found, as tables that can be cited."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
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
Group = Mapping[str, Any]  # of `summarise`
Columns = dict[str, Callable[[Any], str]]  # title of each column, and its cell
# first columns of a table that has a line for several groups
_OF_LINE: Columns = {
    "method": lambda line: _main(line)["method"],
    "labelled slices": lambda line: _labelled(_main(line)),
}


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
            "sections": [section for section in _sections(summary, setting, rules) if section],
        }
        for setting in [each for each in known if each != UNTRAINED] or known
    ]
    told = {"failures": [], "dropped_slices": {}, **run}
    facts = {
        key: value
        for key, value in run.items()
        if key not in ("failures", "dropped_slices") and value not in (None, "", [], {})
    }
    text = render("table.md", settings=settings, rules=rules, run=told, facts=facts)
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


def _sections(
    summary: Mapping[str, Any], setting: str, rules: Sequence[str]
) -> Iterator[dict[str, str] | None]:
    """The tables of a setting; what was not trained belongs to every setting."""
    groups = [group for group in summary["groups"] if group["setting"] in (setting, UNTRAINED)]
    scored = [*rules, WHOLE_VOLUME]
    of = {protocol: [g for g in groups if g["protocol"] == protocol] for protocol in scored}
    # the groups of each line of a table; `summarise` has them beside each other
    lines = [
        {group["protocol"]: group for group in part}
        for _, part in groupby(groups, key=lambda group: tuple(group[key] for key in LINE))
    ]
    yield _dice_section(lines, summary["wv_gaps"], rules)
    shown = [group for protocol in scored for group in of[protocol]]
    folds = sorted({int(fold) for group in shown for fold in group["fold_dice"]})
    if len(folds) > 1:
        columns: Columns = {f"fold {fold}": partial(_fold_dice, str(fold)) for fold in folds}
        columns = {"protocol": lambda group: protocol_title(group["protocol"]), **columns}
        yield _section("Dice in % per fold, mean over structures", columns, shown, text=3)
    for protocol in scored:
        names = dict.fromkeys(name for group in of[protocol] for name in group["structures"])
        columns = {name: partial(_mean_sd, "dice", structure=name) for name in names}
        title = f"Dice in % per structure, {protocol_title(protocol)} (mean ± sd)"
        yield _section(title, {**columns, "mean": partial(_mean_sd, "dice")}, of[protocol])
    columns = {title: partial(_mean_sd, figure) for figure, title in OTHER_FIGURES.items()}
    title = "Other figures, whole volume, mean over structures (mean ± sd)"
    yield _section(title, columns, of[WHOLE_VOLUME])
    for protocol in scored:
        columns = {
            "second": lambda entry: entry["second"],
            "labelled slices": _labelled,
            "first minus second [95 % interval]": partial(_interval, "mean_difference"),
            "Wilcoxon p": lambda entry: (
                "< 0.001" if entry["p_value"] < 0.001 else f"{entry['p_value']:.3f}"
            ),
            "cases": lambda entry: str(entry["count"]),
        }
        compared = [
            entry
            for kind in dict.fromkeys([setting, UNTRAINED])
            for entry in summary["comparisons"]
            if (entry["setting"], entry["protocol"]) == (kind, protocol)
        ]
        title = f"Dice of two methods, case by case, {protocol_title(protocol)}"
        yield _section(title, columns, compared, {"first": lambda entry: entry["first"]}, text=3)
    yield _support_section(lines, rules)


def _section(
    title: str,
    columns: Columns,
    entries: Sequence[Any],
    heads: Columns | None = None,
    text: int = 2,
    note: str = "",
) -> dict[str, str] | None:
    """A table with a line per entry; None without a line.

    Args:
        title: its heading.
        columns: title of each column, and its cell of an entry.
        entries: what the lines are about.
        heads: the first columns; None: method and labelled slices.
        text: number of first columns that hold text; the others hold numbers.
        note: below it.
    """
    if not entries:
        return None
    method: Columns = {"method": lambda group: group["method"], "labelled slices": _labelled}
    cells = {**(method if heads is None else heads), **columns}
    rows = [[cell(entry) for cell in cells.values()] for entry in entries]
    return {"title": title, "table": pipe_table([*cells], rows, range(text)), "note": note}


def _dice_section(
    lines: Sequence[Mapping[str, Group]], gaps: Iterable[Mapping[str, Any]], rules: Sequence[str]
) -> dict[str, str] | None:
    """Dice under every protocol; each rule of EP1 has columns of its own."""
    gap_rules = [*rules] or [ORACLE]
    lost = {
        (*(gap[key] for key in LINE), gap["told"]): _interval("mean_difference", gap)
        for gap in gaps
    }

    def dice(protocol: str, line: Mapping[str, Group]) -> str:
        found = line[protocol]["mean"]["dice"] if protocol in line else {}
        return NONE if found.get("mean") is None else _interval("mean", found)

    def gap(rule: str, line: Mapping[str, Group]) -> str:
        key = tuple(next(iter(line.values()))[name] for name in LINE)
        oracle = lost.get((*key, ORACLE))
        marked = NONE if oracle is None else f"{oracle} (oracle)"
        return marked if rule == ORACLE else lost.get((*key, rule), marked)

    several = len(gap_rules) > 1
    columns: Columns = {
        **{f"EP1 (`{rule}`)": partial(dice, rule) for rule in rules},
        "oracle extent": partial(dice, ORACLE),
        "whole volume": partial(dice, WHOLE_VOLUME),
        **{f"WV gap{f' (`{rule}`)' if several else ''}": partial(gap, rule) for rule in gap_rules},
    }
    title = "Dice in %, mean over structures [95 % interval]"
    return _section(title, columns, lines, _OF_LINE, note=GAP_NOTE)


def _support_section(
    lines: Sequence[Mapping[str, Group]], rules: Sequence[str]
) -> dict[str, str] | None:
    """How many cases, folds and supports the lines rest on."""

    def spread(line: Mapping[str, Group]) -> str:
        found = line.get(WHOLE_VOLUME, {}).get("support_choice_range")
        return f"{found['lowest']:.1f} to {found['highest']:.1f}" if found else NONE

    def undefined(rule: str, line: Mapping[str, Group]) -> str:
        return str(line[rule]["mean"]["undefined"]) if rule in line else NONE

    columns: Columns = {
        "cases": lambda line: _cases(_main(line)),
        "folds": lambda line: ", ".join(map(str, _main(line)["folds"])),
        "choices of support": lambda line: ", ".join(map(str, _main(line)["choices"])),
        "whole-volume Dice, worst to best choice": spread,
        "cases without some structure": lambda line: str(_main(line)["mean"]["absent"]),
        **{f"of these undefined in EP1 (`{rule}`)": partial(undefined, rule) for rule in rules},
    }
    return _section("What the lines rest on", columns, lines, _OF_LINE)


def _main(line: Mapping[str, Group]) -> Group:
    """The group of a line that says most: that of the whole volume where it was run."""
    return line.get(WHOLE_VOLUME) or next(iter(line.values()))


def _labelled(entry: Mapping[str, Any]) -> str:
    return labelled_title(entry["labelled"], entry["shots"])


def _cases(group: Group) -> str:
    """Number of cases; per structure where one of them is not scored in all."""
    total = group["mean"]["cases"]
    counts = {name: entry["cases"] for name, entry in group["structures"].items()}
    if all(count == total for count in counts.values()):
        return str(total)
    return f"{total} ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def _interval(mean: str, entry: Mapping[str, Any]) -> str:
    return f"{entry[mean]:z.1f} [{entry['low']:z.1f}, {entry['high']:z.1f}]"


def _fold_dice(fold: str, group: Group) -> str:
    return f"{group['fold_dice'][fold]:.1f}" if fold in group["fold_dice"] else NONE


def _mean_sd(figure: str, group: Group, structure: str = "") -> str:
    entry = group["structures"].get(structure) if structure else group["mean"]
    if entry is None or entry[figure]["mean"] is None:
        return NONE
    return f"{entry[figure]['mean']:z.1f} ± {entry[figure]['sd']:z.1f}"
