"""Pages: their links lead somewhere, and a bundle's page holds what its user needs, no more."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import fsmis_components

REPOSITORY = Path(__file__).resolve().parent.parent
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
).stdout.splitlines()
PAGES = sorted(REPOSITORY / name for name in LISTED if (REPOSITORY / name).is_file())


def anchors(page: Path) -> set[str]:
    """Addresses of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_page_of_a_bundle_is_short() -> None:
    pages = list(REPOSITORY.glob("bundles/*/docs/README.md"))
    assert len(pages) >= 3
    assert max(len(page.read_text().splitlines()) for page in pages) <= 150


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == fsmis_components.__version__
