"""SSL-ALPNet: slices are segmented by adaptive local prototypes (Ouyang et al., TMI 2022)."""

from typing import Dict, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.resize import resize_mask
from fsmis_components.layers.support_state import SupportState, support_state
from fsmis_components.losses import margin_cross_entropy
from fsmis_components.networks.few_shot_network import (
    FewShotNetwork,
    SliceFeatures,
    alignment_loss,
    all_labelled,
    with_background,
)
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.similarity import prototype_similarity


class ALPNet(FewShotNetwork):
    """Adaptive local prototype network, several structures and shots in one call.

    Windows are lengths in pixels of the image. The prototypes of all sections of positive weight
    are joined; where all weights are zero the structure is absent and its logit is ``-2 * scale``.

    Args:
        encoder: ``resunet`` (default), ``resnet101`` (the paper's) or a module with ``stride``,
            ``pad_multiple`` and a level ``high``.
        train_window: side of a local prototype's cell in training; 32 in the paper.
        eval_window: side of a cell in evaluation; 16 in the paper.
        switch_window: a structure that fills no block of this side is segmented by its global
            prototype alone; 32 in the paper.
        threshold: share of a cell that the mask must fill; 0.95 in the paper.
        scale: factor of the cosine similarity; 20 in the paper.
        background_weight: weight of background pixels in the query loss; 0.05 in the paper.
        support_pack: state of a support that ``net(image)`` uses; not part of the weights.
    """

    pointwise = True

    def __init__(
        self,
        encoder: Union[str, nn.Module] = "resunet",
        train_window: int = 32,
        eval_window: int = 16,
        switch_window: int = 32,
        threshold: float = 0.95,
        scale: float = 20.0,
        background_weight: float = 0.05,
        support_pack: Optional[SupportState] = None,
    ) -> None:
        super().__init__(encoder, support_pack)
        self.threshold = threshold
        self.scale = scale
        self.background_weight = background_weight
        # in positions of the features
        self.train_window = max(1, train_window // self.stride)
        self.eval_window = max(1, eval_window // self.stride)
        self.switch_window = max(1, switch_window // self.stride)

    def build_support(
        self, features: SliceFeatures, masks: Tensor, valid: Tensor, seeds: Optional[Tensor] = None
    ) -> SupportState:
        """Pool the prototypes of labelled support slices; see the base class. Nothing is drawn."""
        foreground = self._to_features(masks.flatten(0, 1), features)
        inside = self._to_features(torch.ones_like(masks[:, :, :1]).flatten(0, 1), features)
        return self._pool(features.high, foreground, inside - foreground, valid)

    def support_settings(self) -> Dict[str, float]:
        """Return what shapes a support state beside the weights; a stored pack must agree."""
        return {
            "cell": self.eval_window,
            "switch": self.switch_window,
            "threshold": self.threshold,
        }

    def _train_step(
        self, image: Tensor, support_image: Tensor, support_label: Tensor, label: Tensor
    ) -> Dict[str, Tensor]:
        support, query = self._encode_episode(image, support_image)
        state = self.build_support(support, support_label, all_labelled(support_label), None)
        margins = self._margins(query.high, state, None)
        logits = self._to_image(margins, query.image_size)
        return {
            "logits": with_background(logits),
            "query_loss": margin_cross_entropy(logits, label, self.background_weight),
            "alignment_loss": self._alignment(support, query, margins, support_label, label),
        }

    def _alignment(
        self,
        support: SliceFeatures,
        query: SliceFeatures,
        margins: Tensor,
        support_label: Tensor,
        label: Tensor,
    ) -> Tensor:
        """Segment the support by the query's prediction (PAR; Wang et al., ICCV 2019).

        A structure that the query does not show cannot lead back to the support: it counts as 0.
        """
        b, s, n = support_label.shape[0], support_label.shape[1], support_label.shape[2]
        whole = torch.ones([b, 1, support_label.shape[-2], support_label.shape[-1]])
        inside = self._to_features(whole.to(margins), query)
        predicted = (margins > 0).to(margins) * inside
        valid = torch.ones([b, 1, n], dtype=torch.bool, device=margins.device)
        state = self._pool(query.high, predicted, inside - predicted, valid)
        repeated = {name: tensor.repeat_interleave(s, 0) for name, tensor in state.items()}
        logits = self._to_image(self._margins(support.high, repeated, None), support.image_size)
        return alignment_loss(logits, support_label, torch.logical_not(label.flatten(2).any(-1)))

    def _pool(
        self, features: Tensor, foreground: Tensor, background: Tensor, valid: Tensor
    ) -> SupportState:
        foreground = foreground * valid.flatten(0, 1)[:, :, None, None]
        background = background * valid.flatten(0, 1)[:, :, None, None]
        window = self.train_window if self.training else self.eval_window
        cells, foreground_cells = grid_prototypes(features, foreground, window, self.threshold)
        background_cells = grid_prototypes(features, background, window, self.threshold)[1]
        local_mode = fills_a_block(foreground, self.switch_window, self.threshold)
        return support_state(
            valid,
            cells=cells.unsqueeze(1),
            foreground_cells=foreground_cells,
            background_cells=background_cells,
            foreground_global=masked_average_pool(features, foreground),
            background_global=masked_average_pool(features, background),
            local_mode=local_mode,
        )

    def _margins(
        self, query: Tensor, state: SupportState, section_weights: Optional[Tensor]
    ) -> Tensor:
        """Return score_fg - score_bg at the features' size, (B, N, h, w)."""
        used = state["valid"]
        if section_weights is not None:
            used = used & (section_weights > 0)
        n = used.shape[1]
        foreground_cells = (state["foreground_cells"] & used.unsqueeze(-1)).flatten(2, 3)
        background_cells = (state["background_cells"] & used.unsqueeze(-1)).flatten(2, 3)
        shots = state["foreground_global"]

        # foreground and background of all structures choose among the same vectors, so that one
        # product serves them all: the cells, and each structure's global prototypes
        everything = torch.cat([state["cells"].flatten(2, 3), shots.flatten(1, 2).unsqueeze(1)], 2)
        of_structure = torch.eye(n, dtype=torch.bool, device=used.device).unsqueeze(-1)
        own_shots = (of_structure & used.unsqueeze(2)).flatten(2)  # (B or 1, N, N * S)
        foreground_valid = torch.cat([foreground_cells, own_shots], 2)
        background_valid = torch.cat([background_cells, torch.zeros_like(own_shots)], 2)
        counted = torch.cat([foreground_valid, background_valid], 1)
        if torch.jit.is_tracing() and everything.shape[0] == 1 and counted.shape[0] == 1:
            scores = _similarity_of_used(query, everything, counted, self.scale)
        else:
            scores = prototype_similarity(query, everything, counted, scale=self.scale)
        foreground, background = scores[:, :n], scores[:, n:]

        absent = torch.logical_not(used.any(-1))[:, :, None, None]
        local_mode = (state["local_mode"] & used).any(-1)[:, :, None, None]
        if not bool((local_mode | absent).all()):
            single = _global_score(query, shots, used, self.scale)
            foreground = torch.where(local_mode, foreground, single)
        # the released code stops where no cell is pure background; we compare with its mean
        no_cell = torch.logical_not(background_cells.any(-1))[:, :, None, None]
        if not bool((torch.logical_not(no_cell) | absent).all()):
            fallback = _global_score(query, state["background_global"], used, self.scale)
            background = torch.where(no_cell, fallback, background)
        return torch.where(absent, -2.0 * self.scale, foreground - background)

    def _to_features(self, masks: Tensor, features: SliceFeatures) -> Tensor:
        """Resize masks (B, N, H, W) to the features; the encoder's padding belongs to nothing."""
        h, w = features.high.shape[-2], features.high.shape[-1]
        bottom = h * self.stride - masks.shape[-2]
        right = w * self.stride - masks.shape[-1]
        return resize_mask(F.pad(masks, [0, right, 0, bottom]), (h, w)).to(features.high)


def _global_score(query: Tensor, prototypes: Tensor, used: Tensor, scale: float) -> Tensor:
    """Compare with the mean over sections of global prototypes (B or 1, N, S, C)."""
    weights = used.to(prototypes).unsqueeze(-1)
    mean = (prototypes * weights).sum(2) / weights.sum(2).clamp_min(1.0)
    return prototype_similarity(query, mean.unsqueeze(2), scale=scale)


def _similarity_of_used(query: Tensor, prototypes: Tensor, valid: Tensor, scale: float) -> Tensor:
    """Compare with the valid ones of (1, 1, P, C) alone, structure by structure.

    For export, which would make the scores of all prototypes at once.
    """
    maps: List[Tensor] = []
    for n in range(valid.shape[1]):
        used = torch.where(valid[0, n])[0]
        if used.shape[0] == 0:
            maps.append(torch.zeros_like(query[:, :1]))
        else:
            maps.append(prototype_similarity(query, prototypes[:, :, used], scale=scale))
    return torch.cat(maps, 1)


def grid_prototypes(
    features: Tensor, mask: Tensor, window: int, threshold: float
) -> Tuple[Tensor, Tensor]:
    """Return the mean features (B, P, C) of grid cells, and which are each structure's, (B, N, P).

    Incomplete cells at the lower and right border are left out, as in ALPNet (Ouyang et al.,
    ECCV 2020, section 3.3). Cells are those of the features, so all structures share them.

    Args:
        features: (B, C, h, w).
        mask: weights in [0, 1], (B, N, h, w).
        window: side of a cell in feature positions, clipped to the features' size.
        threshold: share of a cell that the mask must exceed.
    """
    side = _clipped(window, features)
    cells = F.avg_pool2d(features, side).flatten(2).transpose(1, 2)  # (B, P, C)
    filled = F.avg_pool2d(to_compute_dtype(mask), side).flatten(2)  # (B, N, P)
    return cells, filled > threshold


def fills_a_block(mask: Tensor, window: int, threshold: float) -> Tensor:
    """Return where a structure fills any block, (B, N) bool: there local prototypes serve."""
    filled = F.avg_pool2d(to_compute_dtype(mask), _clipped(window, mask))
    return filled.flatten(2).amax(2) >= threshold


def _clipped(window: int, maps: Tensor) -> List[int]:
    return [min(window, maps.shape[-2]), min(window, maps.shape[-1])]
