"""From finished folds to `ablation.md`, `ablation.json` and `ablation.csv`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.ablation.comparison import compare
from fsmis_components.evaluation.ablation.figures import collect, write_cases
from fsmis_components.evaluation.ablation.folder import AblationFolder, FinishedFold
from fsmis_components.evaluation.ablation.tables import ablation_page
from fsmis_components.evaluation.provenance import joined_hash
from fsmis_components.evaluation.records import CaseRecord
from fsmis_components.evaluation.results_folder import file_name, read_record


def write_ablation(output_dir: str | Path) -> list[Path]:
    """Write the tables of all that is finished in a folder, whichever process made it.

    Args:
        output_dir: the folder that `run_ablation` fills.

    Returns:
        The files, none where nothing is finished: `ablation.md`, `ablation.json` (all numbers),
        `ablation.csv` (a line per variant, seed, fold and case).

    Raises:
        DataError: no ablation lies there, or a file of it is damaged.
    """
    folder = AblationFolder(Path(output_dir).expanduser())
    plan, about = folder.read_plan()
    finished = [
        noted
        for piece in plan.pieces()
        for fold in plan.folds
        if (noted := folder.finished(piece, fold)) is not None
    ]
    if not finished:
        return []
    records = [record for fold in finished for record in _read_fold(folder, fold)]
    table = collect(records, finished)
    numbers = compare(plan, table, finished)
    facts = {key: value for key, value in about.items() if key != "format"}
    facts |= _provenance(finished, records)
    content = {
        "plan": plan.to_dict(),
        "about": facts,
        **numbers,
        "weights": {f"{one.piece.title}, fold {one.fold}": one.weights for one in finished},
    }
    paths = [folder.root / f"ablation.{ending}" for ending in ("md", "json", "csv")]
    atomic_write_text(paths[0], ablation_page(plan, numbers, facts))
    atomic_write_text(paths[1], json.dumps(content, indent=1, allow_nan=False) + "\n")
    atomic_write_text(paths[2], write_cases(table, finished))
    return paths


def _read_fold(folder: AblationFolder, fold: FinishedFold) -> list[CaseRecord]:
    """The records of a finished fold, by name: other folds may be being written meanwhile."""
    method = folder.evaluated / "cases" / file_name(fold.piece.title)
    records = []
    for case in fold.cases:
        paths = list(method.glob(f"fold{fold.fold}_*/{file_name(case)}.json"))
        if len(paths) != 1:
            raise DataError(
                f"{method}: holds {len(paths)} records of case {case}, fold {fold.fold}, which is "
                f"noted as finished; delete the note in {folder.root / 'finished'} to evaluate the "
                "fold anew."
            )
        records.append(read_record(paths[0]))
    return records


def _provenance(finished: Sequence[FinishedFold], records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Hashes of data and code, versions and machines, each once."""
    images = {record.image.rpartition("/")[2]: record.fingerprint for record in records}
    return {
        "queries": joined_hash(images),
        "code of the trainings": _each([fold.training.get("code") for fold in finished]),
        "code of the evaluation": _each([fold.evaluation.get("code") for fold in finished]),
        "machine": _each([fold.evaluation.get("machine") for fold in finished]),
        "threads": _each([fold.evaluation.get("threads") for fold in finished]),
        "versions": _each([fold.evaluation.get("versions") for fold in finished]),
    }


def _each(values: Sequence[Any]) -> list[Any]:
    """Different values in the order in which they come."""
    return [value for index, value in enumerate(values) if value not in values[:index]]
