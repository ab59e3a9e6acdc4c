from __future__ import annotations

from fsmis_components.inferers.report.facts import facts_table


def test_nested_facts() -> None:
    html = facts_table({"a<b": {"torch": "2 > 1"}, "folds": [0, 1], "none": [], "x": None})
    assert "<th>a&lt;b</th>" in html and "<td>2 &gt; 1</td>" in html
    assert "<td>0, 1</td>" in html
    assert html.count("<td>none</td>") == 1 and "<td>None</td>" in html


def test_long_lists_are_folded() -> None:
    html = facts_table({"files": [f"f{index}" for index in range(7)], "two": ["a", "b"]})
    assert html.count("<details>") == 1 and "7 entries" in html and "<li>f6</li>" in html
