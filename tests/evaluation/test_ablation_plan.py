"""Plans of ablations: what they hold, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.ablation.plan import (
    Piece,
    check_variants,
    inference_knobs,
    read_ablation_plan,
)

BUNDLES = Path(__file__).parents[2] / "bundles"
BUNDLE = BUNDLES / "ssl_alpnet"
PLAN: dict[str, Any] = {
    "folds": [0, 3],
    "seeds": [2, 1],
    "reference": "full",
    "stages": [{"epochs": 1}],
    "common": {"spatial_size": 64, "learning_rate": 0.1},
    "variants": {
        "full": {},
        "without L_align": {"alignment_weight": 0.0},
        "window": {"train_window": 8},
    },
}


def test_a_file_and_its_content_are_one_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    plan = read_ablation_plan(path)
    assert plan == read_ablation_plan(PLAN)
    assert plan.structures is None
    assert plan.to_dict() == {**PLAN, "structures": None, "ladder": []}
    assert read_ablation_plan(plan.to_dict()) == plan


def test_a_seed_with_all_variants_comes_before_the_next_seed() -> None:
    plan = read_ablation_plan(PLAN)
    assert plan.pieces() == [
        *(Piece("full", 2), Piece("without L_align", 2), Piece("window", 2)),
        *(Piece("full", 1), Piece("without L_align", 1), Piece("window", 1)),
    ]
    assert plan.pieces(["window", "full"], [1]) == [Piece("full", 1), Piece("window", 1)]
    assert plan.chosen_folds([3]) == [3] and plan.chosen_folds() == [0, 3]
    assert Piece("without L_align", 2).folder == "without_L_align_seed2"
    assert Piece("without L_align", 2).title == "without L_align, seed 2"


def test_only_knobs_that_inference_has_are_given_to_it() -> None:
    plan = read_ablation_plan(PLAN)
    assert plan.knobs("window") == {"spatial_size": 64, "learning_rate": 0.1, "train_window": 8}
    assert inference_knobs(plan, "window", BUNDLE) == {"spatial_size": 64, "train_window": 8}
    assert inference_knobs(plan, "without L_align", BUNDLE) == {"spatial_size": 64}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"folds": []}, "folds: expected different numbers from 0 to 4, got []"),
        ({"folds": [0, 5]}, "folds: expected different numbers from 0 to 4"),
        ({"folds": [0, 0]}, "folds: expected different numbers"),
        ({"folds": 0}, "folds: expected different numbers"),
        ({"seeds": []}, "seeds: expected different numbers from 0, got []"),
        ({"seeds": [1, -1]}, "seeds: expected different numbers from 0,"),
        ({"seeds": ["1"]}, "seeds: expected different numbers from 0,"),
        ({"reference": "all"}, "the reference all is no variant of the plan; name one of full,"),
        ({"stages": []}, "stages: expected {knob: value}"),
        ({"stages": {"epochs": 1}}, "stages: expected {knob: value}"),
        ({"variants": ["full"]}, "variants: expected {name: {knob: value}}"),
        ({"variants": {"full": None}}, "variants: expected {knob: value}"),
        ({"common": 3}, "common: expected {knob: value}"),
        ({"ladder": "full"}, "ladder: expected at least two different variants"),
        ({"ladder": ["full"]}, "ladder: expected at least two different variants"),
        ({"ladder": ["full", "full"]}, "ladder: expected at least two different variants"),
        ({"ladder": ["full", "A"]}, "got ['full', 'A']; name some of full, without L_align"),
        ({"common": {"seed": 3}}, "the ablation sets the knob seed"),
        ({"variants": {"full": {"seed": 3}}}, "the ablation sets the knob seed"),
        ({"stages": [{"seed": 3}]}, "the ablation sets the knob seed"),
        ({"rule": "ep1-alp"}, "a plan has no rule"),
        ({"variants": {"full": {}, "A b": {}, "a_B": {}}}, "A b and a_B would share a folder"),
    ],
)
def test_rejects(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError) as error:
        read_ablation_plan({**PLAN, **changes})
    assert sentence in str(error.value)


def test_rejects_files_that_are_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(DataError, match="plan.json: cannot be read"):
        read_ablation_plan(path)
    for text, sentence in (
        ("{", "not a readable JSON file"),
        ("[]", "expected a JSON object"),
        ('{"folds": [0]}', "seeds, reference, stages, variants is missing"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_ablation_plan(path)


@pytest.mark.parametrize(
    ("variants", "seeds", "folds", "sentence"),
    [
        (["full", "none"], None, None, "variants: the plan has no none; name some of full, "),
        ([], None, None, "variants: the plan has no empty choice"),
        (None, [3], None, "seeds: the plan has no 3; name some of 2, 1"),
        (None, None, [1], "folds: the plan has no 1; name some of 0, 3"),
        (None, None, [], "folds: the plan has no empty choice"),
    ],
)
def test_rejects_choices(variants: Any, seeds: Any, folds: Any, sentence: str) -> None:
    plan = read_ablation_plan(PLAN)
    with pytest.raises(DataError, match=sentence):
        plan.pieces(variants, seeds)
        plan.chosen_folds(folds)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"hpg": "none"}, "variant odd: overrides: train.json has no knob hpg"),
        ({"fold": 2}, "variant odd: overrides: fold is set by the training of folds"),
        ({"encoder": "vgg"}, "variant odd: no network can be built .*got 'vgg'"),
    ],
)
def test_rejects_knobs_that_the_bundle_cannot_use(knobs: dict[str, Any], sentence: str) -> None:
    plan = read_ablation_plan({**PLAN, "variants": {"full": {}, "odd": knobs}})
    check_variants(plan, BUNDLE, ["full"])
    with pytest.raises(DataError, match=sentence):
        check_variants(plan, BUNDLE, ["full", "odd"])


def test_rejects_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train.json: cannot be read"):
        check_variants(read_ablation_plan(PLAN), tmp_path, ["full"])


@pytest.mark.parametrize(
    "path", sorted(BUNDLES.glob("*/configs/ablation.json")), ids=lambda path: path.parts[-3]
)
def test_the_plans_of_the_bundles_fit_them(path: Path) -> None:
    plan = read_ablation_plan(path)
    check_variants(plan, path.parents[1], list(plan.variants))
    assert plan.variants[plan.reference] == {}  # the reference is what the bundle ships
