"""Triton kernels that reduce the scores of prototype similarity, imported where they run.

Tiles of scores are made on the tensor cores from the operands as they are, reduced at once and
forgotten; the gradients make them again. Lengths are divided out of the product in float32:
half operands are not rounded again. No kernel adds to memory that another one writes, so results do
not depend on the order of execution.

Shapes: query (B, C, L), prototypes (B or 1, N or 1, P, C), values (B or 1, N, P, V). `lengths`
(B or 1, N or 1, P) are the norms of the prototypes, negative where they are not valid. A stride of
0 shares an axis of 1. `parts` are the pieces into which a sum is split to fill the device.
"""

from typing import Any

import triton
import triton.language as tl

from fsmis_components.ops.similarity.triton_tiles import EXCLUDED, LOG2E, load_tile, multiply


@triton.jit
def reduce_scores(
    query: "Any",
    prototypes: "Any",
    lengths: "Any",
    values: "Any",
    reduced: "Any",  # (parts, B, N, L), with values (parts, B, N, V, L)
    kept: "Any",  # (parts, B, N, L): log of the sum of exponentials; max: index or -1
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
    num_structures: int,
    num_positions: int,
    num_prototypes: int,
    prototypes_per_part: int,
    parts: int,
    scale: float,
    eps: float,
    C: tl.constexpr,
    V: tl.constexpr,  # 0: no values, or values that are picked afterwards
    REDUCTION: tl.constexpr,
    BOUNDED: tl.constexpr,  # exponentials of score - scale stay normal: no running maximum
    PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Reduce the scores of BLOCK_L positions over one part of the prototypes.

    Online softmax: Milakov and Gimelshein, 2018; its tiling: Dao et al., FlashAttention, 2022.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(num_positions, BLOCK_L)
    positions = (program % blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    program = program // blocks
    part = program % parts
    program = program // parts
    CHUNKS: tl.constexpr = (V + BLOCK_D - 1) // BLOCK_D if V > 0 else 1
    chunk = program % CHUNKS
    program = program // CHUNKS
    batch = (program // num_structures).to(tl.int64)
    structure = (program % num_structures).to(tl.int64)

    query += batch * query_stride_b
    prototypes += batch * prototypes_stride_b + structure * prototypes_stride_n
    lengths += batch * lengths_stride_b + structure * lengths_stride_n
    WHOLE: tl.constexpr = C <= BLOCK_C  # the query stays on the chip
    squares = tl.zeros((BLOCK_L,), tl.float32)
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        place = load_tile(
            query, positions, channels, query_stride_l, query_stride_c, num_positions, C
        )
        squares += tl.sum(place.to(tl.float32) * place.to(tl.float32), 1)
    if WHOLE:
        channels = tl.arange(0, BLOCK_C)
        place = load_tile(
            query, positions, channels, query_stride_l, query_stride_c, num_positions, C
        )
    factor = scale * LOG2E / tl.maximum(tl.sqrt(squares), eps)  # logits have base 2

    # below every true score, far above EXCLUDED: a part without valid prototypes sums to 0
    peak = tl.zeros((BLOCK_L,), tl.float32) + (scale if BOUNDED else -2.0 * scale) * LOG2E
    total = tl.zeros((BLOCK_L,), tl.float32)
    weighted = tl.zeros((BLOCK_L,), tl.float32)
    best = tl.zeros((BLOCK_L,), tl.float32) + EXCLUDED
    best_index = tl.zeros((BLOCK_L,), tl.int32) - 1
    if V > 0:
        picked = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
        vectors = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        values += batch * values_stride_b + structure * values_stride_n

    first = part * prototypes_per_part
    for start in range(first, tl.minimum(first + prototypes_per_part, num_prototypes), BLOCK_P):
        numbers = start + tl.arange(0, BLOCK_P)
        length = tl.load(lengths + numbers, mask=numbers < num_prototypes, other=0.0)
        if WHOLE:
            chosen = load_tile(
                prototypes,
                channels,
                numbers,
                prototypes_stride_c,
                prototypes_stride_p,
                C,
                num_prototypes,
            )
            product = tl.dot(place, chosen, input_precision=PRECISION)
        else:
            product = multiply(
                query,
                prototypes,
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
        excluded = (length < 0.0) | (numbers >= num_prototypes)
        bias = tl.where(excluded, EXCLUDED, 0.0)
        logits = product * (1.0 / tl.maximum(length, eps))[None, :] + bias[None, :]  # / factor
        if REDUCTION == "max":
            # not a number wins, as in PyTorch
            logits = tl.where(logits == logits, logits, float("inf"))
            largest = tl.max(logits, 1)
            index = tl.min(
                tl.where(logits == largest[:, None], numbers[None, :], num_prototypes), 1
            )
            best_index = tl.where(largest > best, index, best_index)
            best = tl.maximum(largest, best)
        else:
            if not BOUNDED:
                new_peak = tl.maximum(peak, tl.max(logits, 1) * factor)
                shrink = tl.exp2(peak - new_peak)
                total *= shrink
                weighted *= shrink
                if V > 0:
                    picked *= shrink[:, None]
                peak = new_peak
            weights = tl.exp2(logits * factor[:, None] - peak[:, None])
            total += tl.sum(weights, 1)
            if V > 0:
                vector = load_tile(
                    values,
                    numbers,
                    vectors,
                    values_stride_p,
                    values_stride_v,
                    num_prototypes,
                    V,
                )
                picked = tl.dot(weights.to(vector.dtype), vector, picked, input_precision=PRECISION)
            elif REDUCTION == "softmax":
                weighted += tl.sum(weights * logits, 1)

    inside = positions < num_positions
    group = (part * num_batch + batch) * num_structures + structure
    place_kept = kept + group * num_positions + positions
    if REDUCTION == "max":
        score = tl.where(best == float("inf"), float("nan"), best * factor / LOG2E)
        score = tl.where(best > 0.5 * EXCLUDED, score, -scale)
        tl.store(place_kept, tl.where(best > 0.5 * EXCLUDED, best_index, -1), mask=inside)
        tl.store(reduced + group * num_positions + positions, score, mask=inside)
    else:
        some = total != 0.0
        log_sum = peak / LOG2E + tl.log(total)  # -inf: no valid prototype
        if chunk == 0:
            tl.store(place_kept, log_sum, mask=inside)
        if V > 0:
            picked = tl.where(some[:, None], picked / tl.where(some, total, 1.0)[:, None], 0.0)
            offsets = (group * V + vectors)[None, :] * num_positions + positions[:, None]
            tl.store(reduced + offsets, picked, mask=inside[:, None] & (vectors < V)[None, :])
        else:
            result = tl.where(some, log_sum, -scale)
            if REDUCTION == "softmax":
                mean = weighted * factor / LOG2E / tl.where(some, total, 1.0)
                result = tl.where(some, mean, 0.0)
            tl.store(reduced + group * num_positions + positions, result, mask=inside)


@triton.jit
def combine_parts(
    part_reduced: "Any",  # as of reduce_scores
    part_kept: "Any",
    reduced: "Any",
    kept: "Any",
    num_groups: int,  # B * N
    num_positions: int,
    parts: int,
    scale: float,
    V: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """Join the results of all parts at BLOCK_L positions of one structure."""
    blocks = tl.cdiv(num_positions, BLOCK_L)
    positions = (tl.program_id(0) % blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    inside = positions < num_positions
    here = group * num_positions + positions
    if REDUCTION == "max":
        best = tl.zeros((BLOCK_L,), tl.float32) - scale
        best_index = tl.zeros((BLOCK_L,), tl.int64) - 1
        for part in range(parts):
            there = (part * num_groups + group) * num_positions + positions
            score = tl.load(part_reduced + there, mask=inside, other=0.0)
            index = tl.load(part_kept + there, mask=inside, other=0)
            # ties go to the first; not a number wins
            better = (index >= 0) & ((best_index < 0) | (score > best) | (score != score))
            best = tl.where(better, score, best)
            best_index = tl.where(better, index, best_index)
        tl.store(reduced + here, best, mask=inside)
        tl.store(kept + here, best_index, mask=inside)
    else:
        peak = tl.zeros((BLOCK_L,), tl.float32) + EXCLUDED
        for part in range(parts):
            there = (part * num_groups + group) * num_positions + positions
            peak = tl.maximum(peak, tl.load(part_kept + there, mask=inside, other=0.0))
        total = tl.zeros((BLOCK_L,), tl.float32)
        for part in range(parts):
            there = (part * num_groups + group) * num_positions + positions
            total += tl.exp(tl.load(part_kept + there, mask=inside, other=0.0) - peak)
        some = total != 0.0
        log_sum = peak + tl.log(total)
        tl.store(kept + here, log_sum, mask=inside)
        if REDUCTION == "logsumexp":
            tl.store(reduced + here, tl.where(some, log_sum, -scale), mask=inside)
        else:
            shift = tl.where(some, log_sum, 0.0)  # exp(-inf) is 0, exp(-inf + inf) is not
            WIDTH: tl.constexpr = V if V > 0 else 1
            for vector in range(WIDTH):
                mean = tl.zeros((BLOCK_L,), tl.float32)
                for part in range(parts):
                    source = part * num_groups + group
                    there = source * num_positions + positions
                    share = tl.exp(tl.load(part_kept + there, mask=inside, other=0.0) - shift)
                    there = (source * WIDTH + vector) * num_positions + positions
                    mean += share * tl.load(part_reduced + there, mask=inside, other=0.0)
                there = (group * WIDTH + vector) * num_positions + positions
                tl.store(reduced + there, mean, mask=inside)
