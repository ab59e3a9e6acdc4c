"""Trust: what a result is worth, from what the inference knows without a label of the query."""

from fsmis_components.inferers.trust.case_trust import (
    CaseTrust,
    Measures,
    TrustMeter,
    case_trust,
    mirror_gain,
)
from fsmis_components.inferers.trust.scan_check import ScanCheck, check_scan, told_order

__all__ = [
    "CaseTrust",
    "Measures",
    "ScanCheck",
    "TrustMeter",
    "case_trust",
    "check_scan",
    "mirror_gain",
    "told_order",
]
