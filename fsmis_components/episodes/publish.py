"""A handler by which a MONAI Label server's training replaces the weights that the server uses."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import DataError, exit_on_data_error, writing
from fsmis_components.data.weights import read_state_dict, write_torch
from fsmis_components.encoding.identity import state_hash
from fsmis_components.episodes.checkpoint import plain_weights
from fsmis_components.support.support_pack import SupportPack

logger = logging.getLogger(__name__)
_WEIGHTS, _PACK, _PREVIOUS = "model.pt", "support_pack.safetensors", "previous"
_SHOWN = 12  # digits of a hash in the name of a folder


class PublishWeights:
    """Write the weights of a finished training where a MONAI Label server looks for them.

    The former weights, and a support pack that fits them and no others, go to
    `models/previous/<beginning of their hash>/`, so nothing is lost and no pack of other weights is
    left in use.

    Args:
        network: whose weights are written, `DistributedDataParallel` unwrapped.
        models_dir: the bundle's `models`.
        active: False for a training that must leave the bundle as it is.
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
        """Publish; of several processes the first one does.

        Raises:
            SystemExit: the training failed numerically, or the files cannot be written.
        """
        if idist.get_rank() != 0:
            return
        state = plain_weights(self.network)
        broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
        if broken:
            raise DataError(
                f"the training gave weights that are no numbers ({broken[0]}); {self.models_dir} "
                "is left as it was: train with a lower learning_rate."
            )
        new = state_hash(state)
        another = "copy the new weights from the output folder of the training"
        with writing(self.models_dir, another):
            self._keep_former(new)
            write_torch(state, self.models_dir / _WEIGHTS)
            self._set_pack_aside(new)
        logger.info("%s: weights of the finished training", self.models_dir / _WEIGHTS)

    def _keep_former(self, new: str) -> None:
        path = self.models_dir / _WEIGHTS
        if not path.is_file():
            return
        former = state_hash(read_state_dict(path))
        if former != new:
            kept = self._previous(former) / _WEIGHTS
            atomic_write(kept, lambda unfinished: shutil.copyfile(path, unfinished))

    def _set_pack_aside(self, new: str) -> None:
        path = self.models_dir / _PACK
        if not path.is_file():
            return
        made_by = SupportPack.load(path).weights_hash
        if made_by != new:
            target = self._previous(made_by) / _PACK
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            logger.warning("%s belongs to the former weights, it is now %s", path, target)

    def _previous(self, weights: str) -> Path:
        return self.models_dir / _PREVIOUS / weights[:_SHOWN]
