"""Where the bundles lie that come with this package."""

from __future__ import annotations

from pathlib import Path

import fsmis_components
from fsmis_components.data.errors import DataError

_PLACE = Path(fsmis_components.__file__).resolve().parent.parent
# of the repository; of an installed package, whose wheel brings them along
_HOMES = (_PLACE, _PLACE / "fsmis_shipped")


def shipped(*parts: str) -> Path:
    """A file or folder of the repository that an installed package has too, as `bundles`, `cow`.

    That it is neither here nor there is a `DataError`.
    """
    for home in _HOMES:
        if (found := home.joinpath(*parts)).exists():
            return found
    raise DataError(
        f"{'/'.join(parts)}: not in {_PLACE}; run this in a clone of the repository, or "
        "install the package by pip install ."
    )


def bundle_folder(bundle: str | Path) -> Path:
    """The folder of a bundle: one that is named, or that of a shipped one by its name.

    Raises:
        DataError: neither is there.
    """
    if (Path(bundle) / "configs").is_dir():
        return Path(bundle)
    known = sorted(path.parent.name for path in shipped("bundles").glob("*/configs"))
    if str(bundle) in known:
        return shipped("bundles", str(bundle))
    raise DataError(f"{bundle}: no bundle there; name its folder, or one of {', '.join(known)}.")
