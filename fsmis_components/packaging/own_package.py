"""The package as configs get it: a packed bundle is run with its own content of it, or not at all.

Python has one `fsmis_components` per process. A packed bundle carries a copy, so a process may
already hold another one: an installed package, or the copy of another bundle. The same content
serves; any other is refused in words, also under the same version, as results would differ in
silence. What this module imports is little: another content must be told before it fails.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import fsmis_components
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.knobs import check_path
from fsmis_components.packaging.request_values import refuse_code_of_requests
from fsmis_components.packaging.stamp import PackageStamp, content_hash

_SHOWN = 12  # digits of a hash in a message


@exit_on_data_error
def own_package(bundle_root: str | Path, modules: Iterable[str] = ()) -> ModuleType:
    """Return `fsmis_components`, checked by `require_own_package`, for expressions of a config.

    It is the first thing that a config evaluates, so it also asks `refuse_code_of_requests`. Parts
    of the package that expressions use, such as "data.weights", are imported.

    Raises:
        SystemExit: `bundle_root` is no path, or the bundle was packed with another content of the
            package.
        CodeInRequest: a server's client put code into the config.
    """
    check_path("bundle_root", bundle_root)
    refuse_code_of_requests(Path(bundle_root))
    require_own_package(Path(bundle_root))
    for name in modules:
        importlib.import_module(f"{fsmis_components.__name__}.{name}")
    return fsmis_components


def require_own_package(bundle_root: Path) -> None:
    """Check that the imported package is that of the bundle, or has the same content.

    A bundle without stamp, that is one in the repository, takes the package that is installed. The
    bundle's own copy is taken as it is: who edits it means it. Another content than that with which
    a bundle was packed is a `DataError`.
    """
    stamp = PackageStamp.of_bundle(bundle_root)
    imported = Path(fsmis_components.__file__).resolve().parent
    if stamp is None or imported == (bundle_root / imported.name).resolve():
        return
    content = content_hash(imported)
    if content == stamp.content:
        return
    raise DataError(
        f"bundle {stamp.bundle} {stamp.bundle_version} was packed with fsmis_components "
        f"{stamp.package_version} (content {stamp.content[:_SHOWN]}), but "
        f"{fsmis_components.__version__} (content {content[:_SHOWN]}) from {imported} is imported: "
        f"run the bundle in a Python process of its own, started in {bundle_root.resolve()}."
    )
