"""Handlers that write weights: a training's own, and those that a MONAI Label server uses."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from fsmis_components.data.atomic import atomic_write, atomic_write_text
from fsmis_components.data.errors import DataError, exit_on_data_error, writing
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.weights import read_state_dict, write_torch
from fsmis_components.encoding.identity import state_hash
from fsmis_components.support.support_pack import SupportPack

logger = logging.getLogger(__name__)
_WEIGHTS, _PACK, _PREVIOUS = "model.pt", "support_pack.safetensors", "previous"
_SHOWN = 12  # digits of a hash in the name of a folder


class WeightsSaver:
    """Write plain state dicts: the last weights after each epoch, the best after a validation.

    Args:
        network: whose weights are written, ``DistributedDataParallel`` unwrapped.
        folder: gets ``model.pt`` (last) and ``model_best.pt`` with ``model_best.json``.
        key_metric: name of the validation metric; the greater the better.
    """

    def __init__(self, network: nn.Module, folder: str | Path, key_metric: str) -> None:
        self.network = network
        self.folder = Path(folder)
        self.key_metric = key_metric

    def attach(self, engine: Engine) -> None:
        """Write the weights when an epoch of a trainer or a validation is complete."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @exit_on_data_error
    def __call__(self, engine: Engine) -> None:
        """Write ``model.pt``, or ``model_best.pt`` where the engine carries the key metric."""
        value = engine.state.metrics.get(self.key_metric)
        record = self.folder / "model_best.json"
        with writing(self.folder):
            if value is None:
                write_torch(_plain_weights(self.network), self.folder / _WEIGHTS)
            elif float(value) > _best_value(record):
                write_torch(_plain_weights(self.network), self.folder / "model_best.pt")
                text = json.dumps({"metric": self.key_metric, "value": float(value)})
                atomic_write_text(record, text)


def _best_value(record: Path) -> float:
    """The metric of the best weights so far; below every other one where there are none."""
    if not record.exists():
        return -math.inf
    try:
        return float(parse_json(record.read_text(encoding="utf-8"))["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{record}: damaged, so nothing says how good the best weights are; delete it, and the "
            "next validation counts as the best."
        ) from error


class PublishWeights:
    """Write the weights of a finished training where a MONAI Label server looks for them.

    The former weights, and a support pack that fits them and no others, go to
    `models/previous/<beginning of their hash>/`, so nothing is lost and no pack of other weights is
    left in use. A training that is not `active` leaves the bundle's `models_dir` as it is.
    """

    def __init__(self, network: nn.Module, models_dir: str | Path, active: bool) -> None:
        self.network = network
        self.models_dir = Path(models_dir)
        self.active = active

    def attach(self, engine: Engine) -> None:
        """Publish when the training is complete."""
        if self.active:
            engine.add_event_handler(Events.COMPLETED, self)

    @exit_on_data_error
    def __call__(self, engine: Engine) -> None:
        """Publish; of several processes the first one does."""
        if idist.get_rank() != 0:
            return
        state = _plain_weights(self.network)
        broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
        if broken:
            raise DataError(
                f"the training gave weights that are no numbers ({broken[0]}); {self.models_dir} "
                "is left as it was: train with a lower learning_rate."
            )
        new = state_hash(state)
        weights, pack = self.models_dir / _WEIGHTS, self.models_dir / _PACK
        with writing(self.models_dir, "copy the new weights from the training's output folder"):
            former = state_hash(read_state_dict(weights)) if weights.is_file() else new
            if former != new:
                kept = self._previous(former) / _WEIGHTS
                atomic_write(kept, lambda unfinished: shutil.copyfile(weights, unfinished))
            write_torch(state, weights)
            made_by = SupportPack.load(pack).weights_hash if pack.is_file() else new
            if made_by != new:
                target = self._previous(made_by) / _PACK
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(pack, target)
                logger.warning("%s belongs to the former weights, it is now %s", pack, target)
        logger.info("%s: weights of the finished training", weights)

    def _previous(self, weights_hash: str) -> Path:
        return self.models_dir / _PREVIOUS / weights_hash[:_SHOWN]


def _plain_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict on the CPU, `DistributedDataParallel` unwrapped."""
    state = getattr(network, "module", network).state_dict()
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
