from __future__ import annotations

import pytest

from fsmis_components.evaluation.report.markdown import to_html


def test_headings_are_lowered() -> None:
    assert to_html("# One\n## Two", lower_headings=2) == "<h3>One</h3>\n<h4>Two</h4>"
    assert to_html("##### Five", lower_headings=3) == "<h6>Five</h6>"


def test_paragraphs_join_lines_and_end_at_blank_ones() -> None:
    assert to_html("a\nb\n\nc") == "<p>a b</p>\n<p>c</p>"
    assert to_html("a\n- b") == "<p>a</p>\n<ul>\n<li>b</li>\n</ul>"


def test_inline() -> None:
    assert to_html("**a** `b **c**` < 5") == (
        "<p><strong>a</strong> <code>b **c**</code> &lt; 5</p>"
    )


def test_html_is_text() -> None:
    html = to_html("<script>x</script> `<b>`\n\n- <i>\n\n| <u> |\n|---|\n| & |\n\n```\n<s>\n```")
    for tag in ("<script>", "<b>", "<i>", "<u>", "<s>"):
        assert tag not in html
    assert "&lt;u&gt;" in html and "<td>&amp;</td>" in html and "<code>&lt;s&gt;</code>" in html


def test_lists() -> None:
    assert to_html("- a\n  more\n- b") == "<ul>\n<li>a more</li>\n<li>b</li>\n</ul>"
    assert to_html("1. a\n2. b") == "<ol>\n<li>a</li>\n<li>b</li>\n</ol>"


def test_nested_list() -> None:
    assert to_html("- a:\n    - b\n    - c\n- d") == (
        "<ul>\n<li>a:<ul>\n<li>b</li>\n<li>c</li>\n</ul></li>\n<li>d</li>\n</ul>"
    )


def test_table() -> None:
    html = to_html("| name | EP1 | x |\n|:--|--:|:-:|\n| a \\| b | 78.6 | 1 |\n| c |\ntext")
    assert '<thead><tr><th>name</th><th class="right">EP1</th><th class="centre">x</th></tr>' in (
        html
    )
    assert '<tr><td>a | b</td><td class="right">78.6</td><td class="centre">1</td></tr>' in html
    assert '<tr><td>c</td><td class="right"></td><td class="centre"></td></tr>' in html
    assert html.endswith("<p>text</p>")


def test_a_bar_alone_is_no_table() -> None:
    assert to_html("a | b") == "<p>a | b</p>"


@pytest.mark.parametrize("text", ["```\n| a |\n|---|\n```", "```sh\n| a |\n|---|\n"])
def test_code_is_kept_as_it_stands(text: str) -> None:
    assert to_html(text) == "<pre><code>| a |\n|---|</code></pre>"
