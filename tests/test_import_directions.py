from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "fsmis_components"
DRAWN = re.findall(r"^  (\w+) --> (\w+)$", (PACKAGE / "README.md").read_text(), re.MULTILINE)


def _below(folder: str) -> set[str]:
    """All that a folder may import, by the arrows of the drawing in the package's README."""
    direct = {lower for upper, lower in DRAWN if upper == folder}
    return direct.union(*map(_below, direct))


MODULES = {"bundle", "cluster"}  # one file each
FOLDERS = sorted({name for arrow in DRAWN for name in arrow} - MODULES)
MAY_IMPORT = {folder: _below(folder) for folder in [*FOLDERS, *sorted(MODULES)]}
SHARED_BY_NETWORKS = {"encoders", "few_shot_network", "resnet101"}
PURE = ("ops", "layers", "losses", "networks")  # these read no file, variable or command line
READING_MODULES = {
    *("os", "sys", "pathlib", "argparse", "io", "glob", "shutil", "tempfile", "subprocess"),
    *("json", "yaml", "nibabel", "safetensors", "fire"),
}
READING_CALLS = {"open", "torch.load", "torch.save", "torch.hub.load", "input"}


def _files(folder: str) -> list[Path]:
    if folder in MODULES:
        return [PACKAGE / f"{folder}.py"]
    found = sorted((PACKAGE / folder).rglob("*.py"))
    assert found, f"no Python below {folder}"
    return found


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = path.relative_to(REPOSITORY).with_suffix("").parts
                module = ".".join([*parts[: len(parts) - node.level], *filter(None, [module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def _violations(path: Path) -> set[str]:
    top_folder, *rest = path.relative_to(PACKAGE).parts
    folder = Path(top_folder).stem
    wrong = set()
    for name in _imports(path):
        top, _, inner = name.partition(".")
        target = inner.split(".")
        if top in ("tools", "tests", "bundles"):
            wrong.add(f"imports {name}")
        if top == "fsmis_components" and inner:
            if target[0] in MAY_IMPORT and target[0] not in MAY_IMPORT[folder] | {folder}:
                wrong.add(f"imports {name}: {folder} stands below {target[0]}")
            sideways = folder == target[0] == "networks" and rest != ["__init__.py"]
            if sideways and len(target) > 1 and (PACKAGE / "networks" / f"{target[1]}.py").exists():
                own = Path(rest[0]).stem
                if target[1] not in SHARED_BY_NETWORKS | {own}:
                    wrong.add(f"imports {name}: networks do not know each other")
        if folder == "ops" and top in ("monai", "einops"):
            wrong.add(f"imports {name}: ops need PyTorch only")
        if top == "triton" and not path.name.startswith("triton_"):
            wrong.add(f"imports {name}: only triton_backend.py and its kernels do")
        if folder in PURE and top in READING_MODULES:
            wrong.add(f"imports {name}: {folder} read nothing")
    if folder in PURE:
        wrong |= {f"calls {call}" for call in _calls(path) if call in READING_CALLS}
    return wrong


def test_the_drawing_shows_every_folder_and_no_more_than_there_is():
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(FOLDERS)
    assert not [folder for folder in MAY_IMPORT if folder in MAY_IMPORT[folder]]  # no circle
    for upper, lower in DRAWN:
        found = {
            name.split(".")[1] for p in _files(upper) for name in _imports(p) if _is_ours(name)
        }
        assert lower in found, f"{upper} does not import {lower}"
        others = {each for above, each in DRAWN if above == upper} - {lower}
        assert lower not in set().union(*map(_below, others)), f"{upper} --> {lower} goes without"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_down(folder: str):
    files = _files(folder)
    found = {str(p.relative_to(REPOSITORY)): wrong for p in files if (wrong := _violations(p))}
    assert not found


def _is_ours(name: str) -> bool:
    return name.startswith(f"{PACKAGE.name}.")


def test_configs_name_only_published_targets():
    """Bundles refer to Python by dotted names of the package and of published libraries only."""
    for path in REPOSITORY.glob("bundles/*/configs/*.json"):
        for target in _targets(json.loads(path.read_text())):
            top = target.split(".")[0]
            dotted = "." in target
            assert not dotted or top in ("fsmis_components", "monai", "torch", "ignite"), (
                path,
                target,
            )


def _targets(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)
