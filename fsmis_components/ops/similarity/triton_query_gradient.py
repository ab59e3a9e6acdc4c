"""Triton kernel of the gradient of the query of prototype similarity; see `triton_kernels`.

With s the scores, g the gradient of the result, r the result and w = exp(s - log_sum), the gradient
of a score is w * slope: for ``softmax`` g * (1 + s - r), with values g . values - g . r, for
``logsumexp`` g; for ``max`` it is g at the winner. The product is divided by the lengths of both
vectors, whose derivative takes out what lies along the vector itself: that share is the sum of
(gradient of a score) * (score), so that it needs no second pass.

`centre` (B, N, L) is r, with values g . r. Results are (parts, ...), one piece per part.
"""

from typing import Any

import triton
import triton.language as tl

from fsmis_components.ops.similarity.triton_tiles import (
    accumulate,
    load_tile,
    multiply,
    softmax_weights,
)


@triton.jit
def query_gradient(
    query: "Any",
    prototypes: "Any",
    query_lengths: "Any",  # (B, L)
    lengths: "Any",
    values: "Any",
    grad: "Any",  # (B, N, L), with values (B, N, V, L)
    centre: "Any",
    kept: "Any",
    result: "Any",  # (parts, B, C, L)
    query_stride_b: int,
    query_stride_c: int,
    query_stride_l: int,
    prototypes_stride_b: int,
    prototypes_stride_n: int,
    prototypes_stride_p: int,
    prototypes_stride_c: int,
    lengths_stride_b: int,
    lengths_stride_n: int,
    values_stride_b: int,
    values_stride_n: int,
    values_stride_p: int,
    values_stride_v: int,
    num_batch: int,
    num_sets: int,  # of prototypes: N, or 1
    num_positions: int,
    num_prototypes: int,
    prototypes_per_part: int,
    parts: int,
    scale: float,
    eps: float,
    SHARERS: tl.constexpr,  # structures per set
    C: tl.constexpr,
    V: tl.constexpr,
    REDUCTION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,  # channels of the result at once
    BLOCK_V: tl.constexpr,
) -> None:
    """Write the gradient of BLOCK_L positions of the query from one part of the prototypes."""
    program = tl.program_id(0)
    blocks = tl.cdiv(num_positions, BLOCK_L)
    positions = (program % blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    program = program // blocks
    part = program % parts
    program = program // parts
    chunks = tl.cdiv(C, BLOCK_D)
    outputs = (program % chunks) * BLOCK_D + tl.arange(0, BLOCK_D)
    batch = (program // chunks).to(tl.int64)

    query += batch * query_stride_b
    inside = positions < num_positions
    query_length = tl.load(
        query_lengths + batch * num_positions + positions, mask=inside, other=0.0
    )
    query_factor = 1.0 / tl.maximum(query_length, eps)
    WHOLE: tl.constexpr = (C <= BLOCK_C) & (BLOCK_C == BLOCK_D)
    if WHOLE:
        place = load_tile(
            query, positions, outputs, query_stride_l, query_stride_c, num_positions, C
        )
    along = tl.zeros((BLOCK_L,), tl.float32)
    total = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    first = part * prototypes_per_part
    last = tl.minimum(first + prototypes_per_part, num_prototypes)
    own = prototypes + batch * prototypes_stride_b
    first_group = batch * (num_sets * SHARERS)
    for chosen_set in range(num_sets):
        if REDUCTION == "max":
            for sharer in tl.static_range(SHARERS):
                group = first_group + (chosen_set * SHARERS + sharer)
                here = group * num_positions + positions
                winner = tl.load(kept + here, mask=inside, other=0)
                some = winner >= 0
                length = tl.load(
                    lengths
                    + batch * lengths_stride_b
                    + (group - first_group) * lengths_stride_n
                    + winner,
                    mask=some,
                    other=0.0,
                )
                slope = tl.where(some, tl.load(grad + here, mask=inside, other=0.0), 0.0)
                along += slope * tl.load(centre + here, mask=inside, other=0.0)
                offsets = winner[:, None] * prototypes_stride_p
                offsets += outputs.to(tl.int64)[None, :] * prototypes_stride_c
                known = some[:, None] & (outputs < C)[None, :]
                vectors = tl.load(own + offsets, mask=known, other=0.0)
                total += (slope / tl.maximum(length, eps))[:, None] * vectors.to(tl.float32)
        else:
            for start in range(first, last, BLOCK_P):
                numbers = start + tl.arange(0, BLOCK_P)
                if WHOLE:
                    chosen = load_tile(
                        own,
                        outputs,
                        numbers,
                        prototypes_stride_c,
                        prototypes_stride_p,
                        C,
                        num_prototypes,
                    )
                    product = tl.dot(place, chosen, input_precision=PRECISION)
                    vectors = tl.trans(chosen)
                else:
                    product = multiply(
                        query,
                        own,
                        positions,
                        numbers,
                        query_stride_l,
                        query_stride_c,
                        prototypes_stride_c,
                        prototypes_stride_p,
                        num_positions,
                        num_prototypes,
                        C,
                        BLOCK_C,
                        PRECISION,
                    )
                    vectors = load_tile(
                        own,
                        numbers,
                        outputs,
                        prototypes_stride_p,
                        prototypes_stride_c,
                        num_prototypes,
                        C,
                    )
                mixed = tl.zeros((BLOCK_L, BLOCK_P), tl.float32)
                for sharer in tl.static_range(SHARERS):
                    group = first_group + (chosen_set * SHARERS + sharer)
                    structure = group - first_group  # of 64 bits
                    here = group * num_positions + positions
                    length = tl.load(
                        lengths + batch * lengths_stride_b + structure * lengths_stride_n + numbers,
                        mask=numbers < num_prototypes,
                        other=0.0,
                    )
                    factor = 1.0 / tl.maximum(length, eps)
                    scores = product * (scale * query_factor)[:, None] * factor[None, :]
                    log_sum = tl.load(kept + here, mask=inside, other=0.0)
                    excluded = ((length < 0.0) | (numbers >= num_prototypes))[None, :]
                    weights = softmax_weights(scores, log_sum[:, None], excluded)
                    middle = tl.load(centre + here, mask=inside, other=0.0)[:, None]
                    if V > 0:
                        slope = multiply(
                            grad + group * V * num_positions,
                            values + batch * values_stride_b + structure * values_stride_n,
                            positions,
                            numbers,
                            1,
                            num_positions,
                            values_stride_v,
                            values_stride_p,
                            num_positions,
                            num_prototypes,
                            V,
                            BLOCK_V,
                            PRECISION,
                        )
                        slope = weights * (slope - middle)
                    elif REDUCTION == "softmax":
                        slope = tl.load(grad + here, mask=inside, other=0.0)[:, None]
                        slope = weights * (slope * (1.0 + scores - middle))
                    else:
                        slope = weights * tl.load(grad + here, mask=inside, other=0.0)[:, None]
                    along += tl.sum(slope * scores, 1)
                    mixed += slope * factor[None, :]
                total = accumulate(mixed, vectors, total, PRECISION)
        own += prototypes_stride_n

    raw = load_tile(query, positions, outputs, query_stride_l, query_stride_c, num_positions, C)
    # below eps the length is a constant
    along = tl.where(query_length < eps, 0.0, along * query_factor)
    total = query_factor[:, None] * (scale * total - raw.to(tl.float32) * along[:, None])
    offsets = ((part * num_batch + batch) * C + outputs)[None, :] * num_positions
    tl.store(
        result + offsets + positions[:, None], total, mask=inside[:, None] & (outputs < C)[None, :]
    )
