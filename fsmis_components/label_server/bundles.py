"""The finder of the bundles that `--conf models` names; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from fsmis_components.data.errors import DataError

_CONFIG = Path("configs") / "inference.json"


def find_bundles(app_dir: Path, models: str) -> dict[str, Path]:
    """Folders of bundles by their names.

    Args:
        app_dir: the app's folder; bundles may lie in its `model`, or in `bundles` of the
            repository.
        models: names or folders, separated by commas.

    Raises:
        DataError: a bundle is not there, none is named, or two bear one name.
    """
    places = [app_dir.resolve() / "model", shared_folder(app_dir)]
    found: dict[str, Path] = {}
    for model in filter(None, (part.strip() for part in models.split(","))):
        candidates = [*(place / model for place in places), Path(model).expanduser()]
        path = next((path for path in candidates if (path / _CONFIG).is_file()), None)
        if path is None:
            looked = " and ".join(map(str, places))
            raise DataError(
                f"--conf models: there is no bundle {model}, neither as a folder nor in {looked}; "
                "name a bundle's folder."
            )
        path = path.resolve()
        if path.name in found:
            raise DataError(
                f"--conf models: two bundles are called {path.name}; name one, or rename a folder."
            )
        found[path.name] = path
    if not found:
        raise DataError("--conf models: expected at least one bundle, got none; name one.")
    return found


def shared_folder(app_dir: Path) -> Path:
    """The repository's `bundles`, in which no server trains: it would replace shipped weights."""
    return app_dir.resolve().parent.parent / "bundles"
