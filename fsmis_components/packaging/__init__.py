"""Bundles that travel with a copy of this package: its stamp, and the check that it is used."""

from fsmis_components.packaging.own_package import (
    STAMP,
    PackageStamp,
    content_hash,
    own_package,
    package_files,
)

__all__ = ["STAMP", "PackageStamp", "content_hash", "own_package", "package_files"]
