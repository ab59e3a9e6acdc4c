"""Building blocks of few-shot medical image segmentation for MONAI bundles."""

__version__ = "0.1.0"
