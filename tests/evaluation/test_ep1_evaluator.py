from __future__ import annotations

import re
from pathlib import Path

import pytest
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from monai.data import Dataset
from monai.handlers import MeanDice, from_engine

from fsmis_components import evaluation
from fsmis_components.data.cases import Case, find_cases
from fsmis_components.evaluation import Ep1Evaluator, labelled_items
from fsmis_components.evaluation.records import UNDEFINED, Row


def evaluator(cases: list[Case], support: list[Case], output: Path) -> Ep1Evaluator:
    metric = MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))
    return Ep1Evaluator(
        device="cpu",
        dataset=Dataset(labelled_items(cases)),
        network=IntensityNetwork(),
        support_cases=support,
        output_dir=output,
        fold=2,
        spatial_size=24,
        key_val_metric={"val_mean_dice": metric},
        progress=False,
    )


def test_monai_metric_equals_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        write_scan(tmp_path / "d", number, block_label({1: 1, 2: 2} if number < 3 else {1: 1}))
    support, *tested = find_cases(tmp_path / "d")
    engine = evaluator(tested, [support], tmp_path / "o")
    engine.run()
    assert len([row for row in _own(engine) if row.status != UNDEFINED]) == 3
    assert 100 * engine.state.metrics["val_mean_dice"] == pytest.approx(_by_case(engine))
    assert (tmp_path / "o" / "ep1_fold2.csv").read_text().count("\n") == 1 + 4 * 3
    assert "mask copy" in capsys.readouterr().out


def test_rejects_no_fold(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    with pytest.raises(SystemExit, match="name a fold"):
        evaluator(find_cases(tmp_path), [], tmp_path).run()


def test_a_packed_bundle_evaluates_without_the_packages_of_the_tables() -> None:
    """Only these modules may need the extra `benchmark`, and nothing beside them needs them."""
    tables = {"report", "summary", "tables"}
    words = ["pandas", "markdown", *(f"fsmis_components.evaluation.{name}" for name in tables)]
    for path in Path(evaluation.__file__).parent.rglob("*.py"):
        imports = [
            line for line in path.read_text().splitlines() if re.match("(from|import) ", line)
        ]
        needed = [line for line in imports if line.split()[1] in words]
        assert path.stem in tables or not needed


def _own(engine: Ep1Evaluator) -> list[Row]:
    return [row for row in engine.rows if (row.method, row.protocol) == ("network", "ep1-alp")]


def _by_case(engine: Ep1Evaluator) -> float:
    """MONAI averages the structures of a case first, then the cases."""
    cases: dict[str, list[float]] = {}
    for row in _own(engine):
        if row.status != UNDEFINED:
            cases.setdefault(row.case, []).append(row.dice)
    means = [sum(values) / len(values) for values in cases.values()]
    return sum(means) / len(means)
