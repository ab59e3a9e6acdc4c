"""Similarity of query positions to prototypes, with one function and several backends."""

from fsmis_components.ops.similarity.dispatch import explain_backends, prototype_similarity

__all__ = ["explain_backends", "prototype_similarity"]
