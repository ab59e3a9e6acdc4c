"""HTML pages from templates; whatever a page is filled with is text, never markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 scan", "2 scans"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing(names: Sequence[str]) -> str:
    """Names in a row: "liver", "liver and spleen", "liver, kidney and spleen"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def in_ml(volume: float) -> str:
    """Millilitres to what a reader needs: "1523.4", below ten "2.96"."""
    return f"{volume:.1f}" if volume >= 10 else f"{volume:.2f}"


def percent(share: float) -> str:
    """A share in [0, 1]: "41 %"."""
    return f"{100 * share:.0f} %"


def render(template: str, **values: Any) -> str:
    """The text of a page, of a file in `templates` and the values that it names.

    HTML extends `page.html`, in which all text is escaped.
    """
    environment = _ENVIRONMENT
    if not template.endswith(".html"):  # Markdown stands as it is written
        environment = environment.overlay(autoescape=False, trim_blocks=False, lstrip_blocks=False)
    return environment.get_template(template).render(values)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "counted": counted,
    "listing": listing,
    "ml": in_ml,
    "percent": percent,
    # grey where a pack gives something else than a colour
    "colour": lambda colour: colour if _COLOUR.fullmatch(colour) else "#888888",
    "link": quote,  # a path as a relative address; names may hold spaces, quotes, # and %
    "one_line": lambda text: " ".join(str(text).split()),
}
