from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmis_components.data.cases import find_cases
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.subjects.registry import custom_subject
from fsmis_components.support import load_support_set

PAGE = Path(__file__).parents[2] / "fsmis_components" / "evaluation" / "README.md"


def example() -> str:
    section = PAGE.read_text(encoding="utf-8").partition("## Bring your own method")[2]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_the_example_runs(
    phantom_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_method.py").write_text(example(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    subject = custom_subject("my_method:MyMethod", {})
    assert subject.name == "nearest_mean"
    support = replace(load_support_set(phantom_dataset, support_ids=[1]), slices="all")
    case = find_cases(phantom_dataset)[1]
    query = load_image(case.image)
    predicted = subject.predict(support, query)
    assert predicted.shape == query.shape
    assert set(np.unique(predicted)) == {0, 1, 2, 3, 4}
    # and better than chance: where the query holds a structure, it mostly finds one
    truth = np.asarray(load_label(case.label, query).data)  # type: ignore[arg-type]
    assert (predicted[truth > 0] > 0).mean() > 0.5
