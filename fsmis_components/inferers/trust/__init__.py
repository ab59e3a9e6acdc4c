"""Trust: what a result is worth, from what the inference knows without a label of the query."""

from fsmis_components.inferers.trust.case_trust import CaseTrust, case_trust
from fsmis_components.inferers.trust.meter import Measures, TrustMeter
from fsmis_components.inferers.trust.mirrored import mirror_gain

__all__ = ["CaseTrust", "Measures", "TrustMeter", "case_trust", "mirror_gain"]
