"""The lines of a Markdown table."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence


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
