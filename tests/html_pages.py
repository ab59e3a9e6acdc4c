"""Check a report: tags are closed in order, our script alone runs, nothing comes from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from fsmis_components import reporting

TEMPLATES = Path(reporting.__file__).parent / "templates"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What stands in a page.

    Attributes:
        open: tags that are not closed yet.
        addresses: of pictures and links outside the page.
        loaded: addresses of pictures that a script loads.
        ids: of its elements.
        targets: ids to which links within the page lead.
        scripts: the text of each script.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            address = value or ""
            assert not name.startswith("on"), f"{tag} runs {name}"
            if name == "id":
                self.ids.append(address)
            elif name in ("src", "href", "srcset") and address.startswith("#"):
                self.targets.append(address[1:])
            elif name in ("src", "href", "srcset") and not address.startswith("data:"):
                self.addresses.append(address)
            elif name in ("data-scan", "data-masks"):
                self.loaded.append(address)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked_page(text: str) -> Page:
    """Parse a page and check it; its addresses are left to the caller."""
    page = Page()
    page.feed(text)
    assert not page.open
    ours = {path.read_text(encoding="utf-8").strip() for path in TEMPLATES.glob("*.js")}
    assert set(page.scripts) <= ours  # to the letter: nothing that a page is filled with is in it
    assert "@import" not in text and "url(" not in text and "://" not in "".join(page.scripts)
    assert len(set(page.ids)) == len(page.ids) and set(page.targets) <= set(page.ids)
    return page
