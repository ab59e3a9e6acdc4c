"""Episodes: what they are, how they are drawn, how they become tensors and are trained on."""

from fsmis_components.episodes.checkpoint import (
    EpisodeSampler,
    EpochSetter,
    TrainingState,
    leave_process_group,
)
from fsmis_components.episodes.dataset import (
    CorpusSettings,
    EpisodeDataset,
    MixedEpisodes,
    PatientEpisodeDataset,
)
from fsmis_components.episodes.episode import EpisodeRule, PatientRule
from fsmis_components.episodes.transform import EpisodeTransform, PatientTransform
from fsmis_components.episodes.weights_files import PublishWeights, WeightsSaver

__all__ = [
    "CorpusSettings",
    "EpisodeDataset",
    "EpisodeRule",
    "EpisodeSampler",
    "EpisodeTransform",
    "EpochSetter",
    "MixedEpisodes",
    "PatientEpisodeDataset",
    "PatientRule",
    "PatientTransform",
    "PublishWeights",
    "TrainingState",
    "WeightsSaver",
    "leave_process_group",
]
