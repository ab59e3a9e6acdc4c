"""MkDocs: the site is made of the repository's pages, each under the path where it lies.

    python -m mkdocs build --strict

So links between pages lead to the same place on GitHub and on the site, and nothing is copied by
hand. A notebook becomes a page of its texts and code. `mkdocs.yml` names this file as a hook.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]+)[^)]*\)")  # to what lies here, not to addresses


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files, the pages of the repository, and what these link to."""
    shown = Files([file for file in files if not file.src_uri.endswith((".md", ".ipynb"))])
    for path in map(Path, _listed("*.md", "*.ipynb", ":!**/templates/*")):
        if path.suffix == ".ipynb":
            text = notebook_page(REPOSITORY / path)
            shown.append(File.generated(config, f"{path.with_suffix('.md')}", content=text))
            continue
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        shown.append(File.generated(config, str(path), content=text))
        for name in LINK.findall(text):
            target = (REPOSITORY / path.parent / name).resolve()
            source = target.relative_to(REPOSITORY).as_posix()
            if target.suffix not in (".md", ".ipynb") and source not in shown.src_uris:
                shown.append(File.generated(config, source, abs_src_path=str(target)))
    return shown


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to notebooks lead to their pages."""
    return re.sub(r"(\]\([^)\s:]+)\.ipynb\)", r"\1.md)", markdown)


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _listed(*patterns: str) -> list[str]:
    """Return the files that git has or would take, and that are there."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise PluginError(f"the site is made of what git lists: {done.stderr.strip()}")
    return [name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]
