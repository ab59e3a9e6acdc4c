"""Triton kernels of softmax-weighted prototype similarity, imported where they run.

Tiles of scores are made on the tensor cores from the operands as they are, reduced at once and
forgotten; the gradients make them again. Lengths are divided out of the product in float32:
half operands are not rounded again. No kernel adds to memory that another one writes, so results do
not depend on the order of execution.

Shapes: query (B, L, C), its `query_lengths` (B, L), prototypes (B or 1, N or 1, P, C), where a
stride of 0 shares an axis of 1; `lengths` (B, N, P) are the norms of the prototypes, negative where
they are not valid. What is kept of a softmax is (B, N, L), like result and gradient. All are
contiguous.

With s the scores, g the gradient of the result, r the result and w = exp(s - log_sum), the gradient
of a score is w * (1 + s - r) * g. The product is divided by the lengths of both vectors, whose
derivative takes out what lies along the vector itself: that share is the sum of (gradient of a
score) * (score), so that it needs no second pass. Below eps a length is a constant.
"""

from typing import Any

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
EXCLUDED = tl.constexpr(-1e30)  # the score of an invalid prototype, finite: 0 * it is 0


@triton.jit
def load_tile(
    pointer: "Any", rows: "Any", channels: "Any", num_rows: int, C: tl.constexpr
) -> "Any":
    """Load channels of vectors; 0 outside. Offsets have 64 bits.

    Loads fill with 0 only: other fillings become selections that Triton 3.2 fails to pipeline.
    """
    inside = (rows < num_rows)[:, None] & (channels < C)[None, :]
    offsets = rows.to(tl.int64)[:, None] * C + channels[None, :]
    return tl.load(pointer + offsets, mask=inside, other=0.0)


@triton.jit
def load_vector(pointer: "Any", numbers: "Any", count: int) -> "Any":
    """Load entries that lie side by side; 0 outside."""
    return tl.load(pointer + numbers, mask=numbers < count, other=0.0)


@triton.jit
def score_tile(
    query: "Any",
    prototypes: "Any",
    scaled: "Any",  # scale / length of each position
    length: "Any",  # of each prototype
    positions: "Any",
    numbers: "Any",
    L: int,
    P: int,
    eps: float,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> "Any":
    """Return the scores (positions, numbers) of one slice and structure, float32."""
    product = tl.zeros((positions.shape[0], numbers.shape[0]), tl.float32)
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        place = load_tile(query, positions, channels, L, C)
        chosen = tl.trans(load_tile(prototypes, numbers, channels, P, C))
        product = tl.dot(place, chosen, product, input_precision=PRECISION)
    scores = product * scaled[:, None] * (1.0 / tl.maximum(length, eps))[None, :]
    excluded = (length < 0.0) | (numbers >= P)
    return tl.where(excluded[None, :], EXCLUDED, scores)


@triton.jit
def accumulate(weights: "Any", rows: "Any", total: "Any", PRECISION: tl.constexpr) -> "Any":
    """Return total + weights @ rows for weights of any range, which float16 cannot hold."""
    if rows.dtype == tl.float16:
        rows = rows.to(tl.float32)
    return tl.dot(weights.to(rows.dtype), rows, total, input_precision=PRECISION)


@triton.jit
def reduce_scores(
    query: "Any",
    prototypes: "Any",
    query_lengths: "Any",
    lengths: "Any",
    reduced: "Any",
    kept: "Any",  # logarithm of the sum of exponentials; 0 without a valid prototype
    prototypes_stride_b: int,
    prototypes_stride_n: int,
    N: int,
    L: int,
    P: int,
    scale: float,
    eps: float,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Reduce the scores of BLOCK_L positions and one structure.

    Online softmax: Milakov and Gimelshein, 2018; its tiling: Dao et al., FlashAttention, 2022.
    """
    blocks = tl.cdiv(L, BLOCK_L)
    positions = (tl.program_id(0) % blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    batch, structure = group // N, group % N
    query += batch * L * C
    prototypes += batch * prototypes_stride_b + structure * prototypes_stride_n
    lengths += group * P
    query_length = load_vector(query_lengths + batch * L, positions, L)
    query_factor = 1.0 / tl.maximum(query_length, eps)
    scaled = scale * query_factor

    # below every true score, far above EXCLUDED: without a valid prototype the total is 0
    peak = tl.zeros((BLOCK_L,), tl.float32) - 2.0 * scale
    total = tl.zeros((BLOCK_L,), tl.float32)
    weighted = tl.zeros((BLOCK_L,), tl.float32)
    for start in range(0, P, BLOCK_P):
        numbers = start + tl.arange(0, BLOCK_P)
        length = load_vector(lengths, numbers, P)
        scores = score_tile(
            query, prototypes, scaled, length, positions, numbers, L, P, eps, C, PRECISION, BLOCK_C
        )
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2((peak - new_peak) * LOG2E)
        weights = tl.exp2((scores - new_peak[:, None]) * LOG2E)
        total = total * shrink + tl.sum(weights, 1)
        weighted = weighted * shrink + tl.sum(weights * scores, 1)
        peak = new_peak

    some = total != 0.0
    divisor = tl.where(some, total, 1.0)
    here = group * L + positions
    inside = positions < L
    tl.store(reduced + here, tl.where(some, weighted / divisor, 0.0), mask=inside)
    tl.store(kept + here, tl.where(some, peak + tl.log(divisor), 0.0), mask=inside)


@triton.jit
def query_gradient(
    query: "Any",
    prototypes: "Any",
    query_lengths: "Any",
    lengths: "Any",
    grad: "Any",
    reduced: "Any",
    kept: "Any",
    result: "Any",  # (B, L, C)
    prototypes_stride_b: int,
    prototypes_stride_n: int,
    N: int,
    L: int,
    P: int,
    scale: float,
    eps: float,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,  # channels of the result at once
) -> None:
    """Write the gradient of BLOCK_L positions of the query."""
    program = tl.program_id(0)
    blocks = tl.cdiv(L, BLOCK_L)
    positions = (program % blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    program = program // blocks
    chunks = tl.cdiv(C, BLOCK_D)
    outputs = (program % chunks) * BLOCK_D + tl.arange(0, BLOCK_D)
    batch = (program // chunks).to(tl.int64)
    query += batch * L * C
    query_length = load_vector(query_lengths + batch * L, positions, L)
    query_factor = 1.0 / tl.maximum(query_length, eps)
    scaled = scale * query_factor

    along = tl.zeros((BLOCK_L,), tl.float32)
    total = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for structure in range(N):
        group = batch * N + structure
        here = group * L
        log_sum = load_vector(kept + here, positions, L)
        middle = load_vector(reduced + here, positions, L)
        incoming = load_vector(grad + here, positions, L)
        chosen = prototypes + batch * prototypes_stride_b + structure * prototypes_stride_n
        for start in range(0, P, BLOCK_P):
            numbers = start + tl.arange(0, BLOCK_P)
            length = load_vector(lengths + group * P, numbers, P)
            scores = score_tile(
                query, chosen, scaled, length, positions, numbers, L, P, eps, C, PRECISION, BLOCK_C
            )
            weights = tl.exp2((scores - log_sum[:, None]) * LOG2E)
            slope = weights * (1.0 + scores - middle[:, None]) * incoming[:, None]
            along += tl.sum(slope * scores, 1)
            vectors = load_tile(chosen, numbers, outputs, P, C)
            slope = slope / tl.maximum(length, eps)[None, :]
            total = accumulate(slope, vectors, total, PRECISION)

    raw = load_tile(query, positions, outputs, L, C)
    along = tl.where(query_length < eps, 0.0, along * query_factor)
    total = query_factor[:, None] * (scale * total - raw.to(tl.float32) * along[:, None])
    offsets = (batch * L + positions)[:, None] * C + outputs[None, :]
    inside = (positions < L)[:, None] & (outputs < C)[None, :]
    tl.store(result + offsets, total, mask=inside)


@triton.jit
def prototype_gradient(
    query: "Any",
    prototypes: "Any",
    query_lengths: "Any",
    lengths: "Any",
    grad: "Any",
    reduced: "Any",
    kept: "Any",
    result: "Any",  # (B, N, P, C)
    prototypes_stride_b: int,
    prototypes_stride_n: int,
    N: int,
    L: int,
    P: int,
    scale: float,
    eps: float,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,  # channels of the result at once
) -> None:
    """Write the gradient of BLOCK_P prototypes from one slice."""
    program = tl.program_id(0)
    blocks = tl.cdiv(P, BLOCK_P)
    numbers = (program % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    program = program // blocks
    chunks = tl.cdiv(C, BLOCK_D)
    outputs = (program % chunks) * BLOCK_D + tl.arange(0, BLOCK_D)
    group = (program // chunks).to(tl.int64)
    batch, structure = group // N, group % N
    query += batch * L * C
    query_lengths += batch * L
    prototypes += batch * prototypes_stride_b + structure * prototypes_stride_n
    lengths += group * P
    here = group * L
    length = load_vector(lengths, numbers, P)
    factor = 1.0 / tl.maximum(length, eps)

    along = tl.zeros((BLOCK_P,), tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for start in range(0, L, BLOCK_L):
        positions = start + tl.arange(0, BLOCK_L)
        query_length = load_vector(query_lengths, positions, L)
        query_factor = 1.0 / tl.maximum(query_length, eps)
        scaled = scale * query_factor
        scores = score_tile(
            query, prototypes, scaled, length, positions, numbers, L, P, eps, C, PRECISION, BLOCK_C
        )
        log_sum = load_vector(kept + here, positions, L)
        middle = load_vector(reduced + here, positions, L)
        incoming = load_vector(grad + here, positions, L)
        weights = tl.exp2((scores - log_sum[:, None]) * LOG2E)
        slope = weights * (1.0 + scores - middle[:, None]) * incoming[:, None]
        along += tl.sum(slope * scores, 0)
        vectors = load_tile(query, positions, outputs, L, C)
        total = accumulate(tl.trans(slope * query_factor[:, None]), vectors, total, PRECISION)

    raw = load_tile(prototypes, numbers, outputs, P, C)
    along = tl.where(length < eps, 0.0, along * factor)
    total = factor[:, None] * (scale * total - raw.to(tl.float32) * along[:, None])
    rows = group * P + numbers
    inside = (numbers < P)[:, None] & (outputs < C)[None, :]
    tl.store(result + rows[:, None] * C + outputs[None, :], total, mask=inside)
