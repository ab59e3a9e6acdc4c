"""Support: labelled scans and their encoding."""

from fsmis_components.encoding.feature_cache import FeatureCache
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.support.encode import build_support_pack
from fsmis_components.support.source import Corrections, SupportSource
from fsmis_components.support.support_pack import SupportPack, stored_state
from fsmis_components.support.support_set import (
    Structure,
    SupportScan,
    SupportSet,
    load_support_set,
    support_set_of_cases,
)

__all__ = [
    "Corrections",
    "FeatureCache",
    "Structure",
    "SupportPack",
    "SupportScan",
    "SupportSet",
    "SupportSource",
    "build_support_pack",
    "load_support_set",
    "support_set_of_cases",
    "stored_state",
    "weights_hash",
]
