"""A bundle folder as a subject, with its shipped weights, others, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsmis_components.bundle import UNTRAINED, Bundle
from fsmis_components.data.errors import DataError
from fsmis_components.data.weights import fill_network
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.evaluation.fold_training import finished_facts, fold_folder
from fsmis_components.evaluation.records import read_json
from fsmis_components.evaluation.subjects.base import Group
from fsmis_components.evaluation.subjects.network import NetworkSubject


class BundleSubject(NetworkSubject):
    """The network and the volume inference that `configs/inference.json` of a bundle describes.

    Args:
        bundle_root: the bundle's folder.
        weights: None: the shipped weights; "untrained": random ones; a file; or a folder that
            `benchmark.py train` filled, with weights per fold and, in Setting 2, per group of
            structures.
        knobs: values for knobs of the config, such as `spatial_size`.
        seed: seed of untrained weights.

    Raises:
        DataError: no bundle there, no such knob, or no weights.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        weights: str | Path | None = None,
        knobs: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        given = None if weights is None else Path(weights)
        folds = given is not None and str(weights) != UNTRAINED and given.is_dir()
        described = Bundle(bundle_root, UNTRAINED if folds else weights or "shipped", seed, knobs)
        bundle, inferer = described.root.resolve().name, described.inferer
        super().__init__(
            described.network,
            bundle,
            described.geometry,
            inferer,
            inferer.batch_size,
            inferer.amp,
        )
        self.knobs = described.knobs
        self.weights: str | Path = described.weights  # of the fold that is loaded
        self._folder = given if folds else None
        self._dropped: dict[str, int] | None = None
        self._groups: list[Group] = [None]
        if given is None:
            self.name, self.setting = f"{bundle} (shipped)", "given"
        elif folds:
            self.setting, self._groups = _read_training(given, bundle)
        elif str(weights) == UNTRAINED:
            self.name = f"{bundle} (untrained)"
        else:
            self.name, self.setting = f"{bundle} ({given.stem})", "given"

    def groups(self) -> Sequence[Group]:
        """See `Subject.groups`."""
        return self._groups

    def load(self, fold: int, group: Group) -> None:
        """See `Subject.load`.

        Raises:
            DataError: the fold was not trained, or its weights are not those that were noted.
        """
        if self._folder is None:
            return
        folder = self._folder / fold_folder(fold, group)
        facts = finished_facts(folder)
        if facts is None:
            raise DataError(
                f"{folder}: the training of this fold is not finished; go on with 'benchmark.py "
                "train', or leave the fold out with --folds."
            )
        self.weights = folder / "model.pt"
        fill_network(self.network, self.weights)
        self.forget()
        self._dropped = facts.get("dropped_slices")

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        found = {
            "weights": weights_hash(self.network),
            "knobs": self.knobs,
            "geometry": self.geometry,
            "inference": {} if self.inferer is None else self.inferer.settings(self.network),
        }
        if self._dropped is not None:  # slices that Setting 2 kept out of the training
            found["dropped_slices"] = self._dropped
        return found


def _read_training(folder: Path, bundle: str) -> tuple[str, list[Group]]:
    """Setting and groups of a folder that `benchmark.py train` filled."""
    advice = "train folds with 'benchmark.py train', or name a weights file"
    content = read_json(folder / "training.json", advice)
    try:
        groups = [None if group is None else tuple(map(int, group)) for group in content["groups"]]
        setting, trained = str(content["setting"]), str(content["bundle"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: training.json is damaged ({error}); {advice}.") from error
    if trained != bundle:
        raise DataError(f"{folder}: holds weights of {trained}, not of {bundle}; name another.")
    return setting, groups
