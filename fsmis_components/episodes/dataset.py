"""A dataset of self-supervised episodes, drawn and made on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.volume_names import strip_volume_suffix
from fsmis_components.episodes.corpus import CorpusSettings, load_corpus
from fsmis_components.episodes.episode import Episode, EpisodeDrawer, EpisodeRule
from fsmis_components.episodes.transform import EpisodeTransform
from fsmis_components.transforms.pseudo_labels import PseudoLabels

MAX_ATTEMPTS = 50


class RedrawnEpisodes(Dataset[dict[str, Tensor]]):
    """Episodes by their number; one that loses a region in the warp is drawn again, and counted.

    Subclasses set `drawer` and `length` and give ``_make``.

    Attributes:
        drawer: draws the episode of a number and an attempt.
        length: number of episodes where the dataset is read without a sampler.
    """

    drawer: Any
    length: int
    lost = "a region"  # what an episode must not lose, for the message

    def __len__(self) -> int:
        """Return the number of episodes of one pass."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return episode ``index``.

        Returns:
            image (1, H, W) and label (N, H, W) of the query, support_image (S, 1, H, W),
            support_label (S, N, H, W), redraws ().
        """
        for attempt in range(MAX_ATTEMPTS):
            item = self._make(self.drawer.draw(index, attempt))
            if item is not None:
                return item
        raise RuntimeError(
            f"{type(self).__name__}: episode {index} lost {self.lost} in each of {MAX_ATTEMPTS} "
            "draws; use weaker transforms or a larger min_area"
        )

    def _make(self, episode: Any) -> dict[str, Tensor] | None:
        """Return the tensors of an episode; None where it lost a region."""
        raise NotImplementedError


class EpisodeDataset(RedrawnEpisodes):
    """Episodes as tensors; item i is a pure function of the seed and of i.

    An episode whose region leaves the image in the warp is drawn again, and counted in the item's
    ``redraws``; nothing is skipped in silence.

    Args:
        data: cases, or MONAI's dictionaries with an ``image`` path.
        pseudo_labels: makes the regions of a volume; several kinds are drawn equally often.
        rule: how episodes are drawn.
        transform: random transforms; None for held-out episodes that must stay as they are.
        settings: how volumes become slices.
        seed: seed of all draws.
        length: number of episodes where the dataset is read without a sampler.
        otherwise: cases to take where `data` is empty, as the held-out part of very few scans is.

    Raises:
        SystemExit: the data cannot be used; the message says why.
    """

    @exit_on_data_error
    def __init__(
        self,
        data: Sequence[Case | Mapping[str, object]],
        pseudo_labels: PseudoLabels | Sequence[PseudoLabels],
        rule: EpisodeRule | None = None,
        transform: EpisodeTransform | None = None,
        settings: CorpusSettings | None = None,
        seed: int = 0,
        length: int = 1000,
        otherwise: Sequence[Case | Mapping[str, object]] = (),
    ) -> None:
        data = data or otherwise
        if not data:
            raise DataError("no scan to train on: label one and submit it, or name a dataset_dir.")
        self.data = data
        self.transform = transform
        self.length = length
        cases = [_as_case(item) for item in data]
        kinds = [pseudo_labels] if isinstance(pseudo_labels, PseudoLabels) else pseudo_labels
        self.corpus = load_corpus(cases, kinds, settings or CorpusSettings())
        tables = [volume.table for volume in self.corpus]
        self.drawer = EpisodeDrawer(tables, rule or EpisodeRule(), seed)

    def _make(self, episode: Episode) -> dict[str, Tensor] | None:
        volume = self.corpus[episode.support]
        support, query = (
            _slice(volume.images, volume.labels, z, episode.ways)
            for z in (episode.support_slices[0], episode.query_slice)
        )
        if self.transform is not None:
            support, query = self.transform(support, query, episode.seed)
        if not bool(support[1].any(-1).any(-1).all() and query[1].any(-1).any(-1).all()):
            return None
        return {
            "image": query[0],
            "label": query[1],
            "support_image": support[0].unsqueeze(0),
            "support_label": support[1].unsqueeze(0),
            "redraws": torch.tensor(episode.attempt),
        }


def _as_case(item: Case | Mapping[str, object]) -> Case:
    if isinstance(item, Case):
        return item
    image = Path(str(item["image"]))
    label = Path(str(item["label"])) if "label" in item else None
    return Case(strip_volume_suffix(image.name), image, label)


def _slice(
    images: np.ndarray, labels: np.ndarray, z: int, regions: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(images[z].astype(np.float32)).unsqueeze(0)
    masks = np.stack([labels[z] == region for region in regions])
    return image, torch.from_numpy(masks.astype(np.float32))
