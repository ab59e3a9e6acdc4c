"""What the model zoo and MONAI Label ask beyond MONAI itself: advice for a bundle of others."""

from __future__ import annotations

from bundle_files import Bundle

LARGEST_FILE = 25e6  # bytes; the model zoo's limit for a committed file


def check_advice(bundle: Bundle) -> list[str]:
    """Return what the zoo or MONAI Label would stumble over."""
    return [*_documents(bundle), *_large(bundle), *_code_and_weights(bundle), *_channels(bundle)]


def _documents(bundle: Bundle) -> list[str]:
    missing = [
        f"{name} is missing: add it"
        for name in ("docs/README.md", "docs/data_license.txt", "configs/logging.conf")
        if not (bundle.root / name).is_file()
    ]
    version = bundle.metadata.get("version")
    if version not in bundle.metadata.get("changelog", {}):
        missing.append(f"version {version} has no changelog entry: write one")
    return missing


def _large(bundle: Bundle) -> list[str]:
    return [
        f"{path.relative_to(bundle.root)} is over 25 MB: name it in large_files.yml instead"
        for path in sorted(bundle.root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size > LARGEST_FILE
    ]


def _code_and_weights(bundle: Bundle) -> list[str]:
    found = []
    others = {p.name for p in bundle.root.glob("models/*.pt")} - {"model.pt"}
    if others:
        # MONAI Label lets the user choose among all of them
        found.append(f"models/ offers {sorted(others)} beside model.pt: give them another suffix")
    if list(bundle.root.glob("scripts")):
        found.append("scripts/ collides between bundles of one process: give it a name of its own")
    return found


def _channels(bundle: Bundle) -> list[str]:
    pred = bundle.metadata.get("network_data_format", {}).get("outputs", {}).get("pred", {})
    channels = pred.get("num_channels", 0)
    if isinstance(channels, int) and sorted(pred.get("channel_def", {})) != sorted(
        map(str, range(channels))
    ):
        return ["channel_def of pred does not name every channel from 0: complete it"]
    return []
