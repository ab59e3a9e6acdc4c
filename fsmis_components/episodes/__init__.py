"""Self-supervised episodes: what they are, how they are drawn, how they become tensors."""

from fsmis_components.episodes.checkpoint import TrainingState, WeightsSaver, leave_process_group
from fsmis_components.episodes.corpus import CorpusSettings
from fsmis_components.episodes.dataset import EpisodeDataset
from fsmis_components.episodes.episode import (
    Episode,
    EpisodeDrawer,
    EpisodeRule,
    PatientDrawer,
    PatientRule,
    PatientTable,
    RegionTable,
)
from fsmis_components.episodes.patient_dataset import MixedEpisodes, PatientEpisodeDataset
from fsmis_components.episodes.publish import PublishWeights
from fsmis_components.episodes.sampler import EpisodeSampler, EpochSetter
from fsmis_components.episodes.transform import EpisodeTransform, PatientTransform

__all__ = [
    "CorpusSettings",
    "Episode",
    "EpisodeDataset",
    "EpisodeDrawer",
    "EpisodeRule",
    "EpisodeSampler",
    "EpisodeTransform",
    "EpochSetter",
    "MixedEpisodes",
    "PatientDrawer",
    "PatientEpisodeDataset",
    "PatientRule",
    "PatientTable",
    "PatientTransform",
    "PublishWeights",
    "RegionTable",
    "TrainingState",
    "WeightsSaver",
    "leave_process_group",
]
