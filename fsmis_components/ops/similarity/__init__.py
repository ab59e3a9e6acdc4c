"""Similarity of query positions to prototypes, with one function and several backends."""

from fsmis_components.ops.similarity.dispatch import prototype_similarity

__all__ = ["prototype_similarity"]
