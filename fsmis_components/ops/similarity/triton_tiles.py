"""What the Triton kernels of prototype similarity share: tiles and their products.

Loads fill with 0 only: other fillings become selections that Triton 3.2 fails to pipeline.
"""

from typing import Any

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
EXCLUDED = tl.constexpr(-1e30)  # the logit of an invalid prototype, finite: 0 * it is 0


@triton.jit
def load_tile(
    pointer: "Any",
    rows: "Any",
    columns: "Any",
    stride_row: int,
    stride_column: int,
    num_rows: int,
    num_columns: int,
) -> "Any":
    """Load a matrix of rows and columns; 0 outside. Offsets have 64 bits."""
    inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    offsets = (
        rows.to(tl.int64)[:, None] * stride_row + columns.to(tl.int64)[None, :] * stride_column
    )
    return tl.load(pointer + offsets, mask=inside, other=0.0)


@triton.jit
def multiply(
    left: "Any",
    right: "Any",
    rows: "Any",
    columns: "Any",
    stride_left: int,
    stride_left_inner: int,
    stride_right_inner: int,
    stride_right: int,
    num_rows: int,
    num_columns: int,
    INNER: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
) -> "Any":
    """Return left (rows, INNER) times right (INNER, columns), float32, loaded block by block."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, INNER, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        a = load_tile(left, rows, inner, stride_left, stride_left_inner, num_rows, INNER)
        b = load_tile(right, inner, columns, stride_right_inner, stride_right, INNER, num_columns)
        if a.dtype != b.dtype:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@triton.jit
def accumulate(weights: "Any", rows: "Any", total: "Any", PRECISION: tl.constexpr) -> "Any":
    """Return total + weights @ rows for weights of any range, which float16 cannot hold."""
    if rows.dtype == tl.float16:
        rows = rows.to(tl.float32)
    return tl.dot(weights.to(rows.dtype), rows, total, input_precision=PRECISION)


@triton.jit
def softmax_weights(scores: "Any", log_sum: "Any", excluded: "Any") -> "Any":
    """Return exp(scores - log_sum), 0 where excluded."""
    return tl.where(excluded, 0.0, tl.exp2((scores - log_sum) * LOG2E))
