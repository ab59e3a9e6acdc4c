"""What a similarity problem needs at least: operations and bytes, counted by formula."""

from __future__ import annotations

from dataclasses import dataclass

from fsmis_components.evaluation.similarity_benchmark.problems import DTYPES, SimilarityCase

FORWARD = "forward"
BOTH = "forward+backward"
PASSES = (FORWARD, BOTH)


@dataclass(frozen=True)
class Ceilings:
    """What a device was measured to reach.

    Attributes:
        operations: of a large matrix product, additions and multiplications, per second.
        bytes: read and written by a copy, per second.
    """

    operations: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """The least work of a problem, whoever solves it.

    Attributes:
        operations: additions and multiplications of its matrix products.
        bytes: read from and written to the device's memory.
    """

    operations: int
    bytes: int

    def seconds(self, ceilings: Ceilings) -> float:
        """The time below which the device cannot solve the problem: that of the binding ceiling."""
        return max(self.operations / ceilings.operations, self.bytes / ceilings.bytes)

    def bound(self, ceilings: Ceilings) -> str:
        """Which ceiling binds, `operations` or `bytes`."""
        by_operations = self.operations / ceilings.operations
        return "operations" if by_operations >= self.bytes / ceilings.bytes else "bytes"


def least_work(case: SimilarityCase, direction: str) -> Work:
    """Count the work of an algorithm that never stores the map of scores.

    Operations are those of matrix products, 2 for each multiply-add. Forward: the scores, and with
    values their sum under a softmax. Backward, as the literature counts attention (Dao et al.,
    NeurIPS 2022): the scores once more, a product for each operand's gradient and, with values, one
    for the gradient of the weights. ``max`` picks one prototype for each position, so that its
    backward pass, and its values, need no product. Exponentials and norms are not counted.

    Bytes: each operand is read once in each pass, each result is written once; the backward pass
    also reads the result's gradient, the result and one number for each position and structure
    (the log of the sum, 4 bytes, or the index of the largest, 8 bytes). `max` without values needs
    no result, with values neither the scores nor the result.

    Args:
        case: the problem.
        direction: one of `PASSES`.
    """
    size = DTYPES[case.dtype].itemsize
    is_max = case.reduction.startswith("max")
    columns = case.batch * case.structures * case.positions
    product = 2 * case.scores * case.channels
    value_product = product if case.has_values and not is_max else 0  # values have C entries

    query = size * case.batch * case.channels * case.positions
    prototypes = size * case.structures * case.prototypes * case.channels
    operands = query + prototypes * (2 if case.has_values else 1)
    result = size * columns * (case.channels if case.has_values else 1)
    forward = Work(product + value_product, operands + result)
    if direction == FORWARD:
        return forward
    if direction != BOTH:
        raise ValueError(f"least_work: expected a direction in {PASSES}, got {direction!r}")

    kept = columns * (8 if is_max else 4)
    operations = 0 if is_max else 3 * product + 2 * value_product
    # the forward pass writes what is kept, the backward pass reads it
    moved = 2 * kept + 2 * operands + result + (0 if is_max else result)
    return Work(forward.operations + operations, forward.bytes + moved)
