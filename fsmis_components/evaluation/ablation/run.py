"""Train and evaluate the pieces of an ablation, whatever of them is not finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.ablation.folder import AblationFolder, FinishedFold
from fsmis_components.evaluation.ablation.plan import (
    AblationPlan,
    Piece,
    check_variants,
    inference_knobs,
)
from fsmis_components.evaluation.ablation.results import write_ablation
from fsmis_components.evaluation.fold_training import NUM_FOLDS, train_folds
from fsmis_components.evaluation.provenance import code_hash, surroundings
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.bundle import BundleSubject, fold_folder
from fsmis_components.evaluation.trained_fold import finished_facts
from fsmis_components.support.support_set import label_names, support_set_of_cases

_SHORTEST = 1.0  # minutes; with less left nothing is begun


def run_ablation(
    plan: AblationPlan,
    bundle_root: str | Path,
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    variants: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    minutes: float | None = None,
    progress: bool = True,
    say: Callable[[str], object] = tqdm.write,
) -> list[str]:
    """Train and evaluate, piece by piece, and write the tables after each of them.

    What is finished is not done again, an interrupted training goes on where it was, and a piece
    that fails does not stop the others. Several processes may fill one folder when no two of them
    train the same fold of the same piece.

    Args:
        plan: what is compared.
        bundle_root: the bundle's folder.
        dataset_dir: labelled scans.
        output_dir: see `AblationFolder`; the tables lie at its top.
        variants: names of those to run; None: all.
        seeds: of the plan; None: all.
        folds: of the plan; None: all.
        minutes: nothing is begun after them, and a training ends with the epoch that passes them.
        progress: show the bar of the evaluation.
        say: is told what begins.

    Returns:
        Why pieces failed, a sentence each; what is left for want of time is no failure.

    Raises:
        DataError: the plan does not fit the bundle, the dataset or the folder; then nothing was
            trained.
    """
    if minutes is not None and not minutes >= _SHORTEST:
        raise DataError(f"minutes: expected at least {_SHORTEST:g}, got {minutes}.")
    pieces, chosen = plan.pieces(variants, seeds), plan.chosen_folds(folds)
    root, data = Path(bundle_root).expanduser(), Path(dataset_dir).expanduser()
    check_variants(plan, root, [plan.reference, *(piece.variant for piece in pieces)])
    ablation = _Ablation(plan, root, data, Path(output_dir).expanduser(), progress, say)
    ablation.check_dataset(chosen)
    ablation.folder.open(plan, root.resolve().name, data.resolve().name)
    deadline = None if minutes is None else monotonic() + 60 * minutes
    failures: list[str] = []
    for piece in pieces:
        left = None if deadline is None else (deadline - monotonic()) / 60
        if left is not None and left < _SHORTEST:
            say(f"the time is over before {piece.title}; give the same command to go on")
            break
        for fold, facts in ablation.train(piece, chosen, left, failures).items():
            ablation.evaluate(piece, fold, facts, failures)
        write_ablation(output_dir)
    return failures


class _Ablation:
    """Runs single pieces.

    Args:
        plan: what is compared.
        bundle_root: the bundle's folder.
        dataset_dir: labelled scans.
        output_dir: of the ablation.
        progress: show the bar of the evaluation.
        say: is told what begins.
    """

    def __init__(
        self,
        plan: AblationPlan,
        bundle_root: Path,
        dataset_dir: Path,
        output_dir: Path,
        progress: bool,
        say: Callable[[str], object],
    ) -> None:
        self.plan = plan
        self.bundle_root = bundle_root
        self.dataset_dir = dataset_dir
        self.folder = AblationFolder(output_dir)
        self.progress = progress
        self.say = say
        self.cases = find_cases(dataset_dir, labels="required", section="training")
        named = plan.structures if isinstance(plan.structures, dict) else {}
        self.names = {**label_names(dataset_dir), **{value: name for name, value in named.items()}}

    def check_dataset(self, folds: Sequence[int]) -> None:
        """Read the support of each fold, which takes a second and finds what is amiss.

        Raises:
            DataError: too few scans, a damaged one, or a structure that no label has.
        """
        for task in self._benchmark_plan(folds, {}).tasks():
            support_set_of_cases(
                task.support,
                structures=self.plan.structures,
                names=self.names,
                source=f"fold {task.fold}",
            )

    def train(
        self, piece: Piece, folds: Sequence[int], minutes: float | None, failures: list[str]
    ) -> dict[int, dict[str, Any]]:
        """Train folds of a piece; return what was noted of those that are finished.

        Args:
            piece: the piece.
            folds: numbers of the folds.
            minutes: limit of this training; None: there is none.
            failures: receives a sentence for each.
        """
        try:
            found = train_folds(
                self.bundle_root,
                self.dataset_dir,
                self.folder.trained(piece),
                folds,
                plan={"stages": self.plan.stages},
                minutes=minutes,
                overrides={**self.plan.knobs(piece.variant), "seed": piece.seed},
                cache_dir=self.folder.root / "pseudo_labels",
                say=lambda message: self.say(f"{piece.title}: {message}"),
            )
        except DataError as error:  # another training lies in its folder
            found = [str(error)]
        failures += [f"{piece.title}, {sentence}" for sentence in found]
        trained = {}
        for fold in folds:
            name = fold_folder(fold, None)
            try:
                facts = finished_facts(self.folder.trained(piece) / name)
            except DataError as error:
                sentence = f"{piece.title}, {name}: {error}"
                if sentence not in failures:  # the training may have told it
                    failures.append(sentence)
                continue
            if facts is not None:
                trained[fold] = facts
        return trained

    def evaluate(
        self, piece: Piece, fold: int, facts: Mapping[str, Any], failures: list[str]
    ) -> None:
        """Evaluate a fold of a piece and note that it is finished.

        Args:
            piece: the piece.
            fold: a trained fold of it.
            facts: what its training noted.
            failures: receives a sentence for each.
        """
        title = f"{piece.title}, fold {fold}"
        try:
            noted = self.folder.finished(piece, fold)
            if noted is not None and noted.weights == facts["sha256"]:
                return
            self.say(f"{title}: is evaluated")
            knobs = inference_knobs(self.plan, piece.variant, self.bundle_root)
            subject = BundleSubject(self.bundle_root, self.folder.trained(piece), knobs)
            subject.name = piece.title
            geometry = {key: v for key, v in subject.geometry.items() if key != "modality"}
            plan = self._benchmark_plan([fold], geometry)
            folder = self.folder.evaluated
            records, found = run_benchmark([subject], plan, folder, progress=self.progress)
        except DataError as error:
            failures.append(
                f"{title}: {error} A folder of {self.folder.evaluated.name}/cases may also be "
                "deleted: its fold is then evaluated anew, without training."
            )
            return
        failures += [f"{title}: {sentence}" for sentence in found]
        queries = [case.name for task in plan.tasks() for case in task.queries]
        if [record.rows[0].case for record in records] != queries:
            return  # a case failed, which was told; the next call tries it again
        self.folder.finish(
            FinishedFold(
                variant=piece.variant,
                seed=piece.seed,
                fold=fold,
                parameters=sum(weight.numel() for weight in subject.network.parameters()),
                weights=facts["sha256"],
                cases=queries,
                training={key: value for key, value in facts.items() if key != "sha256"},
                evaluation={"code": code_hash(), **surroundings()},
            )
        )

    def _benchmark_plan(self, folds: Sequence[int], geometry: dict[str, Any]) -> Plan:
        return Plan(
            cases=self.cases,
            rule=RULES["ep1-alp"],
            folds=folds,
            num_folds=NUM_FOLDS,
            labelled=("sections",),
            structures=self.plan.structures,
            names=self.names,
            geometry=geometry,
        )
