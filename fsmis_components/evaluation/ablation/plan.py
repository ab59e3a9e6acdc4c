"""The plan of an ablation: variants of a network as knobs, and the schedule that all share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.fold_training import NUM_FOLDS
from fsmis_components.evaluation.results_folder import file_name
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.training_plan import read_json, read_plan

_REQUIRED = ("folds", "seeds", "reference", "stages", "variants")
_OPTIONAL = ("structures", "common", "ladder")


@dataclass(frozen=True)
class Piece:
    """One variant with one seed: a training per fold.

    Attributes:
        variant: name of the variant.
        seed: the knob `seed` of its trainings.
    """

    variant: str
    seed: int

    @property
    def title(self) -> str:
        """What messages and records call it."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of its files and folders."""
        return f"{file_name(self.variant)}_seed{self.seed}"


@dataclass(frozen=True)
class AblationPlan:
    """What is compared with what, and how each variant is trained.

    Attributes:
        folds: numbers of the folds.
        seeds: one training per seed, variant and fold.
        reference: name of the variant that has all parts.
        stages: knobs of trainings that follow each other, see `TrainingPlan`.
        variants: by name the knobs in which a variant differs.
        structures: label values that are segmented, as in `load_support_set`; None: all.
        common: knobs of all variants.
        ladder: names of variants each of which has one part more than the one before it.
    """

    folds: Sequence[int]
    seeds: Sequence[int]
    reference: str
    stages: Sequence[Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    structures: Any = None
    common: Mapping[str, Any] = field(default_factory=dict)
    ladder: Sequence[str] = field(default_factory=list)

    def knobs(self, variant: str) -> dict[str, Any]:
        """All knobs that a variant sets, but for the seed."""
        return {**self.common, **self.variants[variant]}

    def pieces(
        self, variants: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> list[Piece]:
        """The pieces in the order of their training: a seed with all variants, then the next.

        Args:
            variants: names; None: all of the plan.
            seeds: None: all of the plan.

        Raises:
            DataError: none, or one that the plan does not have.
        """
        names = _chosen(variants, list(self.variants), "variants")
        numbers = _chosen(seeds, list(self.seeds), "seeds")
        return [Piece(variant, seed) for seed in numbers for variant in names]

    def chosen_folds(self, folds: Sequence[int] | None = None) -> list[int]:
        """The folds to run; None: all of the plan.

        Raises:
            DataError: none, or one that the plan does not have.
        """
        return _chosen(folds, list(self.folds), "folds")

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return json.loads(json.dumps(asdict(self)))


def read_ablation_plan(plan: str | Path | Mapping[str, Any]) -> AblationPlan:
    """Read and check a plan.

    Args:
        plan: the JSON object or a file of it. Its keys are the attributes of `AblationPlan`;
            "structures", "common" and "ladder" may be left out.

    Raises:
        DataError: no such file, or a part of the plan is missing or unusable.
    """
    source = "plan" if isinstance(plan, Mapping) else str(plan)
    content = dict(plan) if isinstance(plan, Mapping) else read_json(Path(plan), "name a plan")
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise DataError(f"{source}: {', '.join(missing)} is missing; add it to the plan.")
    unknown = sorted(set(content) - {*_REQUIRED, *_OPTIONAL})
    if unknown:
        raise DataError(f"{source}: a plan has no {', '.join(unknown)}; leave it out.")
    _check_numbers(content["folds"], f"{source}: folds", NUM_FOLDS)
    _check_numbers(content["seeds"], f"{source}: seeds")
    variants, common = content["variants"], content.get("common", {})
    _check_objects([common], f"{source}: common")
    _check_objects(content["stages"], f"{source}: stages")
    if not isinstance(variants, Mapping):
        raise DataError(f"{source}: variants: expected {{name: {{knob: value}}}}, got {variants}.")
    _check_objects(list(variants.values()), f"{source}: variants")
    _check_names(list(variants), source)
    if content["reference"] not in variants:
        raise DataError(
            f"{source}: the reference {content['reference']} is no variant of the plan; name one "
            f"of {', '.join(variants)}."
        )
    _check_ladder(content.get("ladder", ()), list(variants), source)
    if any("seed" in knobs for knobs in (common, *variants.values(), *content["stages"])):
        raise DataError(f"{source}: the ablation sets the knob seed; list it under seeds instead.")
    return AblationPlan(**content)


def inference_knobs(plan: AblationPlan, variant: str, bundle_root: Path) -> dict[str, Any]:
    """Those knobs of a variant that `inference.json` has as well: its architecture."""
    config = read_json(bundle_root / "configs" / "inference.json", "name the folder of a bundle")
    return {knob: value for knob, value in plan.knobs(variant).items() if knob in config}


def check_variants(plan: AblationPlan, bundle_root: Path, variants: Sequence[str]) -> None:
    """Refuse knobs that a bundle does not have, and values with which it builds no network.

    Args:
        plan: the plan.
        bundle_root: the bundle's folder.
        variants: names of those that are to be trained.

    Raises:
        DataError: it names the variant.
    """
    for variant in dict.fromkeys(variants):
        knobs = plan.knobs(variant)
        try:
            stages = read_plan(bundle_root, {"stages": plan.stages}, {**knobs, "seed": 0})
            stages.require(["initial_weights"] if stages.num_stages > 1 else [])
            BundleSubject(bundle_root, "untrained", inference_knobs(plan, variant, bundle_root))
        except DataError as error:
            raise DataError(f"variant {variant}: {error}") from error
        except RuntimeError as error:  # MONAI's, around what a constructor said
            raise DataError(
                f"variant {variant}: no network can be built with the knobs {knobs} "
                f"({error.__cause__ or error}); correct them in the plan."
            ) from error


def _chosen(wanted: Sequence[Any] | None, known: list[Any], what: str) -> list[Any]:
    if wanted is None:
        return known
    unknown = [str(one) for one in wanted if one not in known]
    if unknown or not wanted:
        raise DataError(
            f"{what}: the plan has no {', '.join(unknown) or 'empty choice'}; name some of "
            f"{', '.join(map(str, known))}."
        )
    return [one for one in known if one in wanted]


def _check_numbers(numbers: Any, title: str, below: int | None = None) -> None:
    """Refuse all but a list of different whole numbers from 0."""
    limit = "" if below is None else f" to {below - 1}"
    usable = isinstance(numbers, list | tuple) and all(type(one) is int for one in numbers)
    if (
        not usable
        or not numbers
        or len(set(numbers)) < len(numbers)
        or min(numbers) < 0
        or (below is not None and max(numbers) >= below)
    ):
        raise DataError(f"{title}: expected different numbers from 0{limit}, got {numbers}.")


def _check_objects(objects: Any, title: str) -> None:
    if (
        not isinstance(objects, list | tuple)
        or not objects
        or not all(isinstance(one, Mapping) for one in objects)
    ):
        raise DataError(f"{title}: expected {{knob: value}} for each, got {objects}.")


def _check_ladder(ladder: Any, known: Sequence[str], source: str) -> None:
    """Refuse steps that are no variants, or come twice."""
    usable = isinstance(ladder, list | tuple) and all(step in known for step in ladder)
    if not usable or len(set(ladder)) < len(ladder) or len(ladder) == 1:
        raise DataError(
            f"{source}: ladder: expected at least two different variants in their order, got "
            f"{ladder}; name some of {', '.join(known)}."
        )


def _check_names(names: Sequence[str], source: str) -> None:
    """Refuse two variants whose folders would be one."""
    seen: dict[str, str] = {}
    for name in names:
        # some file systems do not tell capitals apart
        other = seen.setdefault(file_name(name).lower(), name)
        if other != name:
            raise DataError(
                f"{source}: the variants {other} and {name} would share a folder; rename one."
            )
