"""Functions on tensors: pooling under masks and similarity to prototypes; only PyTorch."""

from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.similarity import prototype_similarity

__all__ = ["masked_average_pool", "prototype_similarity"]
