"""Triton kernel of the gradients of the prototypes and of their values.

The mathematics and the names are those of `triton_query_gradient`, summed over positions instead of
prototypes, and over the queries that share an operand.
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
def prototype_gradient(
    query: "Any",
    prototypes: "Any",
    query_lengths: "Any",  # (B, L)
    lengths: "Any",
    norms: "Any",  # (B or 1, N or 1, P): lengths of all prototypes, valid or not
    values: "Any",
    grad: "Any",  # (B, N, L), with values (B, N, V, L)
    centre: "Any",
    kept: "Any",
    result: "Any",  # (parts, batch and structures of the operand, P, C), of values (..., P, V)
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
    num_structures: int,
    num_positions: int,
    num_prototypes: int,
    positions_per_part: int,
    parts: int,
    result_batch: int,  # batch and sets of the operand
    result_sets: int,
    queries_per_result: int,  # B where the operand is shared by all queries, else 1
    scale: float,
    eps: float,
    SHARERS: tl.constexpr,  # structures per set of the operand
    C: tl.constexpr,
    V: tl.constexpr,
    REDUCTION: tl.constexpr,
    OF_VALUES: tl.constexpr,  # the gradient of the values in place of the prototypes
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,  # channels of the result at once
    BLOCK_V: tl.constexpr,
) -> None:
    """Write the gradient of BLOCK_P prototypes, or their values, from one part of the positions."""
    WIDTH: tl.constexpr = V if OF_VALUES else C
    program = tl.program_id(0)
    blocks = tl.cdiv(num_prototypes, BLOCK_P)
    numbers = (program % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    program = program // blocks
    part = program % parts
    program = program // parts
    chunks = tl.cdiv(WIDTH, BLOCK_D)
    outputs = (program % chunks) * BLOCK_D + tl.arange(0, BLOCK_D)
    program = program // chunks
    chosen_set = (program % result_sets).to(tl.int64)
    batch = (program // result_sets).to(tl.int64)

    WHOLE: tl.constexpr = (C <= BLOCK_C) & (BLOCK_C == BLOCK_D) & (not OF_VALUES)
    along = tl.zeros((BLOCK_P,), tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    first = part * positions_per_part
    last = tl.minimum(first + positions_per_part, num_positions)
    for step in range(queries_per_result):
        source = batch + step
        place = query + source * query_stride_b
        own = prototypes + source * prototypes_stride_b + chosen_set * prototypes_stride_n
        if WHOLE:
            mine = load_tile(
                own, numbers, outputs, prototypes_stride_p, prototypes_stride_c, num_prototypes, C
            )
        for start in range(first, last, BLOCK_L):
            positions = start + tl.arange(0, BLOCK_L)
            inside = positions < num_positions
            query_length = tl.load(
                query_lengths + source * num_positions + positions, mask=inside, other=0.0
            )
            query_factor = 1.0 / tl.maximum(query_length, eps)
            if WHOLE:
                there = load_tile(
                    place, outputs, positions, query_stride_c, query_stride_l, C, num_positions
                )
            if REDUCTION != "max":
                if WHOLE:
                    product = tl.dot(mine, there, input_precision=PRECISION)
                else:
                    product = multiply(
                        own,
                        place,
                        numbers,
                        positions,
                        prototypes_stride_p,
                        prototypes_stride_c,
                        query_stride_c,
                        query_stride_l,
                        num_prototypes,
                        num_positions,
                        C,
                        BLOCK_C,
                        PRECISION,
                    )
            mixed = tl.zeros((BLOCK_P, BLOCK_L), tl.float32)
            for sharer in tl.static_range(SHARERS):
                structure = chosen_set * SHARERS + sharer
                group = source * num_structures + structure
                here = group * num_positions + positions
                middle = tl.load(centre + here, mask=inside, other=0.0)[None, :]
                if REDUCTION == "max":
                    winner = tl.load(kept + here, mask=inside, other=0)
                    weights = tl.where(winner[None, :] == numbers[:, None], 1.0, 0.0)
                    scores = middle
                else:
                    length = tl.load(
                        lengths
                        + source * lengths_stride_b
                        + structure * lengths_stride_n
                        + numbers,
                        mask=numbers < num_prototypes,
                        other=0.0,
                    )
                    factor = scale / tl.maximum(length, eps)
                    scores = product * factor[:, None] * query_factor[None, :]
                    log_sum = tl.load(kept + here, mask=inside, other=0.0)[None, :]
                    weights = softmax_weights(scores, log_sum, (length < 0.0)[:, None])
                if OF_VALUES:
                    mixed += weights
                else:
                    if V > 0:
                        slope = multiply(
                            values + source * values_stride_b + structure * values_stride_n,
                            grad + group * V * num_positions,
                            numbers,
                            positions,
                            values_stride_p,
                            values_stride_v,
                            num_positions,
                            1,
                            num_prototypes,
                            num_positions,
                            V,
                            BLOCK_V,
                            PRECISION,
                        )
                        slope = weights * (slope - middle)
                    else:
                        slope = tl.load(grad + here, mask=inside, other=0.0)[None, :]
                        if REDUCTION == "softmax":
                            slope = slope * (1.0 + scores - middle)
                        slope = weights * slope
                    along += tl.sum(slope * scores, 1)
                    mixed += slope * query_factor[None, :]
            if OF_VALUES:
                group = source * num_structures + chosen_set
                vectors = load_tile(
                    grad + group * V * num_positions,
                    positions,
                    outputs,
                    1,
                    num_positions,
                    num_positions,
                    V,
                )
            elif WHOLE:
                vectors = tl.trans(there)
            else:
                vectors = load_tile(
                    place, positions, outputs, query_stride_l, query_stride_c, num_positions, C
                )
            total = accumulate(mixed, vectors, total, PRECISION)

    own_set = batch * result_sets + chosen_set
    if not OF_VALUES:
        norm = tl.load(
            norms + own_set * num_prototypes + numbers, mask=numbers < num_prototypes, other=0.0
        )
        factor = 1.0 / tl.maximum(norm, eps)
        # below eps the length is a constant
        along = tl.where(norm < eps, 0.0, along * factor)
        own = prototypes + batch * prototypes_stride_b + chosen_set * prototypes_stride_n
        raw = load_tile(
            own, numbers, outputs, prototypes_stride_p, prototypes_stride_c, num_prototypes, C
        )
        total = factor[:, None] * (scale * total - raw.to(tl.float32) * along[:, None])
    rows = (part * result_batch * result_sets + own_set) * num_prototypes + numbers
    tl.store(
        result + rows[:, None] * WIDTH + outputs[None, :],
        total,
        mask=(numbers < num_prototypes)[:, None] & (outputs < WIDTH)[None, :],
    )
