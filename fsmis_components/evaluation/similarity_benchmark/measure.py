"""One case, all contenders: time, temporary memory, error and share of the device's ceiling."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fsmis_components.evaluation.similarity_benchmark.contenders import (
    BASE,
    EPS,
    SCALE,
    Contender,
    Solve,
)
from fsmis_components.evaluation.similarity_benchmark.memory import temporary_bytes
from fsmis_components.evaluation.similarity_benchmark.problems import (
    REDUCTIONS,
    Inputs,
    SimilarityCase,
    make_inputs,
)
from fsmis_components.evaluation.similarity_benchmark.timing import (
    interleaved_seconds,
    paired_ratio,
)
from fsmis_components.evaluation.similarity_benchmark.work import FORWARD, Ceilings, least_work
from fsmis_components.ops.similarity import prototype_similarity

_CHECKED_POSITIONS = 256


@dataclass(frozen=True)
class Measured:
    """What one contender did in one case and pass; figures are None where it was skipped.

    Attributes:
        case: the problem.
        direction: `forward` or `forward+backward`.
        contender: its name.
        skipped: why it did not run, in words.
        seconds: median of a call.
        speed: how many times faster than matmul + softmax, the median over the rounds.
        speed_low: lower quartile of it.
        speed_high: upper quartile.
        temporary_bytes: peak above inputs and results.
        largest_error: of the result, against the definition in float64 at 256 positions or less.
        operations: least that the problem needs.
        bytes: likewise.
        bound: which ceiling binds, `operations` or `bytes`.
        ceiling_share: the least time that the device's ceilings allow, over the median.
    """

    case: SimilarityCase
    direction: str
    contender: str
    operations: int
    bytes: int
    bound: str
    skipped: str = ""
    seconds: float | None = None
    speed: float | None = None
    speed_low: float | None = None
    speed_high: float | None = None
    temporary_bytes: int | None = None
    largest_error: float | None = None
    ceiling_share: float | None = None


@dataclass
class _Ready:
    """A contender that has run once."""

    call: Callable[[], Sequence[Tensor]]
    temporary_bytes: int
    largest_error: float


def measure_case(
    case: SimilarityCase,
    contenders: Sequence[Contender],
    direction: str,
    ceilings: Ceilings,
    *,
    device: torch.device,
    seed: int = 0,
    rounds: int = 11,
    shortest: float = 0.02,
) -> list[Measured]:
    """Measure the contenders side by side.

    A backend that cannot run here, or a lack of a GPU's memory, becomes a row that says so.

    Args:
        case: the problem.
        contenders: who runs; speeds are those against the base, if it is among them.
        direction: one of `PASSES`.
        ceilings: of the device, in the dtype of the case.
        device: where to run.
        seed: of the inputs.
        rounds: turns of each contender.
        shortest: seconds of a turn, at least.
    """
    inputs = make_inputs(case, device, seed)
    expected = _expected(case, inputs)
    skipped: dict[str, str] = {}
    ready: dict[str, _Ready] = {}
    for contender in contenders:
        reason = contender.reason(case)
        if reason:
            skipped[contender.name] = reason
            continue
        solve = contender.build(case)
        call = _call(solve, inputs, direction)
        try:
            error = _largest_error(case, call()[0], expected)
            ready[contender.name] = _Ready(call, temporary_bytes(call, device), error)
        except NotImplementedError as refused:  # the backend's own sentence
            skipped[contender.name] = str(refused)
        except torch.OutOfMemoryError:
            skipped[contender.name] = "the device's memory does not suffice"
    times = interleaved_seconds(
        {name: one.call for name, one in ready.items()}, rounds, device, shortest
    )
    work = least_work(case, direction)
    rows = []
    for contender in contenders:
        name = contender.name
        given = (case, direction, name, work.operations, work.bytes, work.bound(ceilings))
        if name in skipped:
            rows.append(Measured(*given, skipped=skipped[name]))
            continue
        seconds = statistics.median(times[name])
        ratio = paired_ratio(times[BASE], times[name]) if BASE in times else None
        rows.append(
            Measured(
                *given,
                seconds=seconds,
                speed=ratio.median if ratio else None,
                speed_low=ratio.low if ratio else None,
                speed_high=ratio.high if ratio else None,
                temporary_bytes=ready[name].temporary_bytes,
                largest_error=ready[name].largest_error,
                ceiling_share=work.seconds(ceilings) / seconds,
            )
        )
    return rows


def _call(solve: Solve, inputs: Inputs, direction: str) -> Callable[[], Sequence[Tensor]]:
    """What is timed: the result, and with the backward pass the gradients of all operands."""
    if direction == FORWARD:

        def forward() -> Sequence[Tensor]:
            with torch.no_grad():
                return (solve(inputs),)

        return forward
    asked = inputs.with_gradient()

    def both() -> Sequence[Tensor]:
        result = solve(asked)
        # the values picked by max say nothing to the query: it may have no gradient
        gradients = torch.autograd.grad(
            result, asked.operands, asked.grad.to(result.dtype), allow_unused=True
        )
        return (result.detach(), *(gradient for gradient in gradients if gradient is not None))

    return both


def _expected(case: SimilarityCase, inputs: Inputs) -> Tensor:
    """The definition in float64 at some of the positions, (B, N, K) or (B, N, V, K)."""
    reduction, _ = REDUCTIONS[case.reduction]
    query = inputs.query.flatten(2)[:, :, _checked(case)]
    return prototype_similarity(
        query.double(),
        inputs.prototypes.double(),
        values=None if inputs.values is None else inputs.values.double(),
        reduction=reduction,
        scale=SCALE,
        eps=EPS,
        backend="reference",
    )


def _largest_error(case: SimilarityCase, result: Tensor, expected: Tensor) -> float:
    chosen = result.detach().flatten(-2)[..., _checked(case)]
    return float((chosen.double() - expected).abs().max())


def _checked(case: SimilarityCase) -> slice:
    return slice(0, None, max(1, -(-case.positions // _CHECKED_POSITIONS)))
