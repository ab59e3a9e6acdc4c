"""Building blocks of few-shot medical image segmentation for MONAI bundles."""

from typing import Any

__version__ = "0.2.0"
__all__ = ["load_bundle"]


def __getattr__(name: str) -> Any:
    # only who asks for a bundle waits for all that it needs
    if name == "load_bundle":
        from fsmis_components.bundle import load_bundle

        return load_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
