from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.similarity_benchmark import contenders as contenders_module
from fsmis_components.evaluation.similarity_benchmark.ceilings import measure_ceilings
from fsmis_components.evaluation.similarity_benchmark.chart import draw_chart
from fsmis_components.evaluation.similarity_benchmark.contenders import (
    BASE,
    Contender,
    all_contenders,
)
from fsmis_components.evaluation.similarity_benchmark.measure import Measured, measure_case
from fsmis_components.evaluation.similarity_benchmark.memory import temporary_bytes
from fsmis_components.evaluation.similarity_benchmark.problems import (
    REDUCTIONS,
    SimilarityCase,
    make_inputs,
    plan_cases,
)
from fsmis_components.evaluation.similarity_benchmark.results import (
    claim_folder,
    run_facts,
    write_tables,
)
from fsmis_components.evaluation.similarity_benchmark.timing import (
    interleaved_seconds,
    paired_ratio,
)
from fsmis_components.evaluation.similarity_benchmark.work import (
    BOTH,
    FORWARD,
    PASSES,
    Ceilings,
    Work,
    least_work,
)

CPU = torch.device("cpu")
CEILINGS = Ceilings(operations=1e9, bytes=1e9)
PLAIN = (BASE, "broadcast cosine", "attention", "streamed", "reference", "auto")


def small(reduction: str, dtype: str = "float32") -> SimilarityCase:
    return SimilarityCase(reduction, dtype, side=5, prototypes=7, channels=3, batch=2, structures=4)


# side 2, P 3, C 5, B 2, N 7: 4 positions, 2 * 7 * 3 * 4 = 168 scores, 56 results of one number;
# query 2 * 5 * 4 = 40 numbers, prototypes 7 * 3 * 5 = 105
@pytest.mark.parametrize(
    ("reduction", "direction", "operations", "moved"),
    [
        ("softmax", FORWARD, 168 * 10, 4 * (40 + 105 + 56)),
        ("logsumexp", FORWARD, 168 * 10, 4 * (40 + 105 + 56)),
        ("softmax_values", FORWARD, 2 * 168 * 10, 4 * (40 + 105 + 105 + 56 * 5)),
        ("max_values", FORWARD, 168 * 10, 4 * (40 + 105 + 105 + 56 * 5)),
        # forward; kept twice; operands read and gradients written; gradient and result read
        ("softmax", BOTH, 4 * 168 * 10, 4 * (201 + 2 * 56 + 2 * 145 + 2 * 56)),
        ("softmax_values", BOTH, 7 * 168 * 10, 4 * (530 + 2 * 56 + 2 * 250 + 2 * 280)),
        ("max", BOTH, 168 * 10, 4 * (201 + 2 * 145 + 56) + 2 * 8 * 56),
    ],
)
def test_least_work_by_hand(reduction: str, direction: str, operations: int, moved: int) -> None:
    case = SimilarityCase(reduction, "float32", 2, 3, 5, batch=2, structures=7)
    assert least_work(case, direction) == Work(operations, moved)


def test_half_operands_have_half_the_bytes() -> None:
    case = SimilarityCase("softmax", "bfloat16", 2, 3, 5, batch=2, structures=7)
    assert least_work(case, FORWARD).bytes == 2 * (40 + 105 + 56)
    # what is kept has 4 bytes in every dtype
    assert least_work(case, BOTH).bytes == 2 * (201 + 2 * 145 + 2 * 56) + 4 * 2 * 56


def test_the_binding_ceiling() -> None:
    ceilings = Ceilings(operations=100.0, bytes=10.0)
    assert Work(300, 20).seconds(ceilings) == 3.0
    assert Work(300, 20).bound(ceilings) == "operations"
    assert Work(300, 70).seconds(ceilings) == 7.0
    assert Work(300, 70).bound(ceilings) == "bytes"


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="least_work: expected a direction in"):
        least_work(small("softmax"), "backward")


def test_plan_is_a_cross_through_the_middle_sizes() -> None:
    cases = plan_cases(["softmax"], ["float32"], (8, 16, 32), (1, 2), (3, 5, 7))
    sizes = {(case.side, case.channels) for case in cases}
    assert sizes == {(8, 5), (16, 3), (16, 5), (16, 7), (32, 5)}
    assert len(cases) == 10 and {case.prototypes for case in cases} == {1, 2}
    everything = plan_cases(
        ["softmax"], ["float32"], (8, 16, 32), (1, 2), (3, 5, 7), every_combination=True
    )
    assert len(everything) == 18


@pytest.mark.parametrize("sides", [(), (0,)])
def test_plan_refuses_sizes(sides: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="--sides: expected numbers of 1 or more"):
        plan_cases(["softmax"], ["float32"], sides)


def test_inputs_repeat_and_have_the_shapes_of_the_case() -> None:
    first, again = (make_inputs(small("softmax_values"), CPU, seed=3) for _ in range(2))
    assert first.query.shape == (2, 3, 5, 5) and first.prototypes.shape == (1, 4, 7, 3)
    assert first.values is not None and first.values.shape == (1, 4, 7, 3)
    assert first.grad.shape == (2, 4, 3, 5, 5)
    assert torch.equal(first.query, again.query)
    assert not torch.equal(first.query, make_inputs(small("softmax"), CPU, seed=4).query)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_contenders_agree(reduction: str) -> None:
    """Results and gradients, in float32 against the definition in float64."""
    case = small(reduction)
    known = all_contenders(CPU, 2**30)
    inputs = make_inputs(case, CPU, seed=0)
    exact = inputs._replace(
        query=inputs.query.double(),
        prototypes=inputs.prototypes.double(),
        values=None if inputs.values is None else inputs.values.double(),
        grad=inputs.grad.double(),
    ).with_gradient()
    expected = known["reference"].build(case)(exact)
    slopes = torch.autograd.grad(
        expected, exact.operands, exact.grad, allow_unused=True, materialize_grads=True
    )
    ran = [known[name] for name in PLAIN if not known[name].reason(case)]
    assert len(ran) >= 5
    for contender in ran:
        asked = inputs.with_gradient()
        result = contender.build(case)(asked)
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)
        found = torch.autograd.grad(
            result, asked.operands, asked.grad, allow_unused=True, materialize_grads=True
        )
        for own, slope in zip(found, slopes, strict=True):
            torch.testing.assert_close(own.double(), slope, rtol=1e-3, atol=1e-3)


def test_reasons_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small("max")
    known = all_contenders(CPU, broadcast_bytes=100)
    assert known["attention"].reason(case) == "attention has no max"
    assert not known["attention"].reason(small("softmax"))
    # 2 * 4 * 7 * 25 scores of 3 channels of 4 bytes
    assert "would have 0.0 GiB, the bound is 0.0 GiB" in known["broadcast cosine"].reason(case)
    needed = 2 * 4 * 7 * 25 * 3 * 4
    assert not all_contenders(CPU, needed)["broadcast cosine"].reason(case)
    assert all_contenders(CPU, needed - 1)["broadcast cosine"].reason(case)
    monkeypatch.setattr(contenders_module.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in known["torch.compile"].reason(case)


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    found = interleaved_seconds(calls, 3, CPU, shortest=0.0)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # one of each to see how long it takes
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_paired_ratio_by_hand() -> None:
    ratio = paired_ratio([2.0, 6.0, 8.0, 10.0, 4.0], [2.0, 2.0, 2.0, 2.0, 2.0])
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 3.0, 4.0)


def test_temporary_memory_by_hand() -> None:
    given = torch.ones(1000)

    def call() -> tuple[Tensor]:
        wide = given.repeat(5)  # 20,000 bytes
        wider = wide.repeat(2)  # 40,000 bytes
        return (wider[:1000].clone(),)  # 4,000 bytes of a result

    call()
    assert temporary_bytes(call, CPU) == 60_000


def test_ceilings_are_positive() -> None:
    found = measure_ceilings(torch.float32, CPU, side=16, copied=1024, runs=2)
    assert found.operations > 0 and found.bytes > 0


@pytest.mark.parametrize("direction", PASSES)
def test_a_case_is_measured(direction: str) -> None:
    known = all_contenders(CPU, 2**30)
    chosen = [known[name] for name in (*PLAIN, "triton")]
    case = small("softmax")
    rows = measure_case(case, chosen, direction, CEILINGS, device=CPU, rounds=3, shortest=0.0)
    assert [row.contender for row in rows] == [*PLAIN, "triton"]
    for row in rows[:-1]:
        assert not row.skipped
        assert row.seconds is not None and row.seconds > 0
        assert row.largest_error is not None and row.largest_error < 1e-4
        assert row.ceiling_share == pytest.approx(
            max(row.operations, row.bytes) / 1e9 / row.seconds
        )
    assert rows[0].speed == rows[0].speed_low == rows[0].speed_high == 1.0
    assert rows[-1].seconds is None and "triton" in rows[-1].skipped


def test_matmul_keeps_the_map_and_its_memory_is_seen() -> None:
    case = SimilarityCase("softmax", "float32", side=16, prototypes=512, channels=4)
    chosen = [all_contenders(CPU, 0)[BASE]]
    (row,) = measure_case(case, chosen, FORWARD, CEILINGS, device=CPU, rounds=1, shortest=0.0)
    assert row.temporary_bytes is not None
    assert row.temporary_bytes >= 2 * 4 * case.scores  # the scores and their softmax


def test_a_lack_of_memory_becomes_a_sentence() -> None:
    def too_much(inputs: object) -> Tensor:
        raise torch.OutOfMemoryError("so many GiB")

    greedy = Contender("greedy", lambda case: too_much, lambda case: "")
    (row,) = measure_case(small("max"), [greedy], FORWARD, CEILINGS, device=CPU, rounds=1)
    assert row.skipped == "the device's memory does not suffice" and row.speed is None


def made_rows() -> list[Measured]:
    rows = []
    for prototypes in (16, 256):
        case = SimilarityCase("softmax", "float32", 32, prototypes, 64)
        work = least_work(case, FORWARD)
        given = (case, FORWARD, BASE, work.operations, work.bytes, "operations")
        rows.append(
            Measured(
                *given,
                seconds=0.00125,
                speed=1.0,
                speed_low=0.5,
                speed_high=2.0,
                temporary_bytes=3 * 2**20,
                largest_error=2e-6,
                ceiling_share=0.25,
            )
        )
        rows.append(Measured(case, FORWARD, "triton", 1, 1, "bytes", skipped="no GPU"))
    return rows


def test_tables(tmp_path: Path) -> None:
    facts = run_facts(CPU, {"float32": CEILINGS}, {"seed": 0, "rounds": 11})
    claim_folder(tmp_path / "new", facts)
    markdown, table, content = write_tables(tmp_path / "new", facts, made_rows())
    text = markdown.read_text()
    cells = (
        "| 32 | 16 | 64 | matmul + softmax | 1.250 | 1.00 (0.50 to 2.00) | 3.00 | 2.0e-06 "
        "| 0.002 | 0.26 | 25% (operations) |"
    )
    assert cells in text
    assert "- triton, 2 times: no GPU" in text and "seed 0, rounds 11" in text
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["prototypes"] == "16" and rows[0]["seconds"] == "0.00125"
    assert rows[1]["skipped"] == "no GPU" and rows[1]["seconds"] == ""
    read = json.loads(content.read_text())
    assert read["threads"] == torch.get_num_threads() and read["device"] == "cpu"
    assert read["versions"]["torch"] == torch.__version__ and read["settings"]["seed"] == 0
    assert read["ceilings"]["float32"] == {"operations": 1e9, "bytes": 1e9}
    assert read["rows"][0]["dtype"] == "float32" and len(read["rows"]) == 4


def test_a_claimed_folder_is_refused(tmp_path: Path) -> None:
    facts = run_facts(CPU, {}, {})
    claim_folder(tmp_path / "r", facts)
    before = (tmp_path / "r" / "similarity.json").read_bytes()
    with pytest.raises(DataError, match="holds a similarity benchmark already.*nothing was"):
        claim_folder(tmp_path / "r", facts)
    assert (tmp_path / "r" / "similarity.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        claim_folder(tmp_path / "file" / "r", facts)


def test_chart(tmp_path: Path) -> None:
    path = draw_chart(made_rows(), tmp_path / "c.png")
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")
    skipped = [row for row in made_rows() if row.skipped]
    assert draw_chart(skipped, tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
