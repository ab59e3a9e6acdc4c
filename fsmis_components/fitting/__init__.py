"""Fit: one labelled scan and a folder of others become a small network of their own."""

from fsmis_components.fitting.fit_of_bundle import FITTED, GEOMETRY_KNOBS, fit_of_bundle
from fsmis_components.fitting.folder_fit import FolderFit
from fsmis_components.fitting.marginal_loss import MarginalDiceCELoss

__all__ = ["FITTED", "GEOMETRY_KNOBS", "FolderFit", "MarginalDiceCELoss", "fit_of_bundle"]
