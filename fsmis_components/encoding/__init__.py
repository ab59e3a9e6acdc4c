"""Encoding: slices of scans as features of a network, for support and query alike."""

from fsmis_components.encoding.feature_cache import FeatureCache, FeatureStore
from fsmis_components.encoding.scan_encoder import EncodedSlices, ScanEncoder

__all__ = ["EncodedSlices", "FeatureCache", "FeatureStore", "ScanEncoder"]
