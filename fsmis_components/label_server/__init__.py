"""MONAI Label: the app `apps/few_shot`, and what a bundle needs in any app of such a server."""

from fsmis_components.label_server.transforms import ReportSupportd, ResolveSupportd

__all__ = ["ReportSupportd", "ResolveSupportd"]
