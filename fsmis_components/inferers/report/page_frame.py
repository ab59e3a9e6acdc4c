"""The frame of a report: one HTML file that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fsmis_components.inferers.report.style import STYLE


def page_frame(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole HTML page.

    Args:
        title: of the window, as text.
        parts: HTML of the sections, in order; the footer follows them.
        style: CSS rules beside those that all reports share.
    """
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<main>\n{body}\n<footer>Research software, not a medical device.</footer>\n</main>\n"
        "</body>\n</html>\n"
    )
