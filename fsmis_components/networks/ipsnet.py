"""IPSNet: prototypes of support and query interact; reconstructed from an abstract."""

from typing import Dict, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import cell_shares, chosen_cells, class_means
from fsmis_components.layers.interactive_prototypes import InteractivePrototypes, IPSFeatures
from fsmis_components.layers.ips_decoders import DeepModule, SelfLearningDecoder
from fsmis_components.layers.pair_decision import PairDecision, PairMaps, SelfSupport
from fsmis_components.layers.support_state import SupportState, select_pairs, support_state
from fsmis_components.losses import margin_cross_entropy, prototype_loss, soft_dice_loss
from fsmis_components.networks.few_shot_network import (
    FewShotNetwork,
    alignment_loss,
    all_labelled,
    check_switches,
    pad_slices,
    take_slices,
    with_background,
)

ABSENT_MARGIN = -40.0


class IPSNet(FewShotNetwork):
    """Interactive prototypes and query self-learning, several structures and shots in one call.

    A reconstruction: of Song et al. (Artif. Intell. Med. 167, 103183, 2025) the abstract alone is
    public. It names the modules, the level of features that each uses and what each is for; layers,
    sizes, losses and numbers are ours. Results are those of an "IPS-style" network, not of theirs.

    The finer one of the encoder's two upper levels carries mean prototypes; the coarser one enters
    the deep module, whose output carries peak prototypes.

    Args:
        encoder: see :func:`build_encoder`; a module needs ``channels`` and ``strides`` too.
        deep: False: without the deep module there are no peak prototypes (ablation).
        deep_width: channels of the high-level features.
        interaction: ``both``, ``mean`` or ``none``, see :class:`InteractivePrototypes`.
        self_learning: False: the interactive prototypes decide.
        split_width: channels of each separated map, see :class:`SelfLearningDecoder`.
        decoder_widths: channels at the middle, low and edge level.
        low_level: see :class:`SelfLearningDecoder`.
        background_grid: fields per side, at most, in which background is averaged first.
        warmup_steps: training steps in which the label replaces the preliminary mask, with a
            probability that falls from 1 to 0.
        background_weight: weight of background pixels in the cross-entropies of the query.
        support_pack: state of a support that ``net(image)`` uses; not part of the weights.

    Raises:
        ValueError: an unknown option, a switch that is no bool, or parts that need each other.
    """

    steps: Tensor

    def __init__(
        self,
        encoder: Union[str, nn.Module] = "resnet101_levels",
        deep: bool = True,
        deep_width: int = 256,
        interaction: str = "both",
        self_learning: bool = True,
        split_width: int = 128,
        decoder_widths: Sequence[int] = (256, 128, 64),
        low_level: bool = True,
        background_grid: int = 32,
        warmup_steps: int = 5000,
        background_weight: float = 0.1,
        support_pack: Optional[SupportState] = None,
    ) -> None:
        super().__init__(encoder, support_pack)
        self.background_weight = background_weight
        check_switches("IPSNet", deep=deep, self_learning=self_learning, low_level=low_level)
        edge, low, middle, last = (int(c) for c in self.encoder.channels)  # type: ignore[union-attr]
        strides = [int(s) for s in self.encoder.strides]  # type: ignore[union-attr]
        self.swapped = strides[3] < strides[2]
        mid, top = (last, middle) if self.swapped else (middle, last)
        self.stride = min(strides[2], strides[3])
        high = deep_width if deep else 0
        self.deep = DeepModule(top, mid, deep_width) if deep else None
        prototypes = InteractivePrototypes(mid, high, interaction)
        self_support = decoder = None
        if self_learning:
            self_support = SelfSupport(grid=background_grid)
            decoder = SelfLearningDecoder(
                (edge, low, mid, high), split_width, decoder_widths, low_level
            )
        self.decision = PairDecision(
            prototypes, self_support, decoder, self.stride, self.pad_multiple
        )
        self.interaction = interaction
        self.warmup_steps = warmup_steps
        # kept with the weights, so that a training that goes on does not warm up again
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def encode(self, image: Tensor) -> IPSFeatures:  # type: ignore[override]
        """Encode slices (B, 1, H, W) of any size into features at four levels."""
        levels = self.encoder(pad_slices(image, self.pad_multiple))
        mid, top = levels.mid, levels.high
        if self.swapped:
            mid, top = levels.high, levels.mid
        high = mid[:, :0] if self.deep is None else self.deep(top, mid)
        return IPSFeatures(levels.edge, levels.low, mid, high, (image.shape[-2], image.shape[-1]))

    def build_support(  # type: ignore[override]
        self, features: IPSFeatures, masks: Tensor, valid: Tensor, seeds: Optional[Tensor] = None
    ) -> SupportState:
        """Pool the prototypes of labelled support slices; see the base class. Nothing is drawn."""
        shares = self._cells(masks.flatten(0, 1), features)  # (B * S, N, h, w)
        whole = self._cells(torch.ones_like(masks[:1, 0, :1]), features)
        mean = class_means(features.mid, shares, whole)  # (B * S, N, 2, C)
        front = chosen_cells(shares)
        back = self.decision.inside(features) & torch.logical_not(front)
        peak = self.decision.prototypes.peaks(features.high, front, back)
        return support_state(valid, area=shares.flatten(2).sum(2), mean=mean, peak=peak)

    def segment(  # type: ignore[override]
        self,
        query_features: IPSFeatures,
        state: SupportState,
        section_weights: Optional[Tensor] = None,
    ) -> Tensor:
        """Return logits (B, 1 + N, H, W) of query slices; see the base class.

        The margins of sections are averaged with their weights; sections of weight 0 cost nothing.
        Where all are zero the structure is absent and its logit is -40.
        """
        b, size = query_features.mid.shape[0], query_features.image_size
        weights = state["valid"].to(torch.float32)
        if section_weights is not None:
            weights = weights * section_weights
        weights = weights.expand(b, -1, -1)  # (B, N, S)
        n, s = weights.shape[1], weights.shape[2]
        total = weights.sum(-1)[..., None, None]
        if section_weights is None and state["valid"].shape[0] == 1:
            margins = self._summed(query_features, state, 0, weights[0])
        elif section_weights is None:
            decided = self._decide(query_features, state).decided.unflatten(1, [n, s])
            margins = (decided * weights[..., None, None]).sum(2)
        else:
            margins = torch.zeros([b, n, size[0], size[1]], device=weights.device)
            # slice by slice, so that features of pairs never exist for the whole batch
            for i in range(b):
                slices = take_slices(query_features, slice(i, i + 1))
                margins[i] = self._summed(slices, state, i, weights[i])[0]
        averaged = torch.where(total > 0, margins / total.clamp_min(1e-12), ABSENT_MARGIN)
        return with_background(averaged)

    def support_settings(self) -> Dict[str, Union[int, str]]:
        """Return what shapes a support state beside the weights; a stored pack must agree."""
        return {"peak": "channel_max", "cells": 0}  # as packs of all versions say

    def _train_step(
        self, image: Tensor, support_image: Tensor, support_label: Tensor, label: Tensor
    ) -> Dict[str, Tensor]:
        b, s, n = support_label.shape[0], support_label.shape[1], support_label.shape[2]
        support, query = self._encode_episode(image, support_image)
        state = self.build_support(support, support_label, all_labelled(support_label), None)

        share = (self.warmup_steps - self.steps) / max(1, self.warmup_steps)
        use_known = torch.rand([b], device=image.device) < share
        self.steps += 1
        # Q = N * S pairs of each query slice
        known = chosen_cells(self._cells(label == 1, query)).repeat_interleave(s, 1)
        maps = self._decide(query, state, known, use_known)
        margins = maps.decided.unflatten(1, [n, s]).mean(2)
        terms: Dict[str, Tensor] = {
            "logits": with_background(margins),
            "query_loss": margin_cross_entropy(margins, label, self.background_weight),
            "dice_loss": soft_dice_loss(margins, label),
            "intermediate_loss": self._map_loss(maps.intermediate, label),
            "guidance_loss": self._map_loss(maps.guidance, label),
            "self_loss": self._map_loss(maps.self_support, label),
            "prototype_loss": self._prototype_loss(query, state, known),
            "alignment_loss": self._alignment(support, query, margins, support_label),
        }
        nothing = torch.zeros_like(terms["query_loss"])
        if self.deep is None:
            terms["guidance_loss"] = nothing
        if self.decision.self_support is None:  # the intermediate map is the decision
            terms["intermediate_loss"] = terms["self_loss"] = nothing
        return terms

    def _decide(
        self,
        query: IPSFeatures,
        state: SupportState,
        known: Optional[Tensor] = None,
        use_known: Optional[Tensor] = None,
    ) -> PairMaps:
        """Decide B query slices by the N * S pairs of one state, or of one for each."""
        b = query.mid.shape[0]
        return self.decision(
            query,
            state["mean"].expand(b, -1, -1, -1, -1).flatten(1, 2),
            state["peak"].expand(b, -1, -1, -1, -1).flatten(1, 2),
            state["area"].expand(b, -1, -1).flatten(1, 2),
            known,
            use_known,
        )

    def _summed(
        self, query: IPSFeatures, state: SupportState, batch: int, weights: Tensor
    ) -> Tensor:
        """Return margins (B, N, H, W), summed over the sections by their weights (N, S).

        Pairs of weight 0 cost nothing. The state of the batch's position answers for all B slices.
        """
        b, size = query.mid.shape[0], query.image_size
        n, s = weights.shape[0], weights.shape[1]
        used = torch.where(weights.flatten() > 0)[0]  # Q of the N * S pairs
        if used.shape[0] == 0:
            return torch.zeros([b, n, size[0], size[1]], device=weights.device)
        found = self._decide(query, select_pairs(state, batch, used)).decided
        # (N, Q): a product is the same sum each time, adding by index is not on a GPU
        share = F.one_hot(used // s, n).transpose(0, 1) * weights.flatten()[used]
        summed = torch.matmul(share, found.float().flatten(2))
        return summed.reshape([b, n, size[0], size[1]])

    def _prototype_loss(self, query: IPSFeatures, state: SupportState, known: Tensor) -> Tensor:
        """Classes agree between the sides and differ on each side, at both levels, (B,).

        The query's prototypes are those of its label.
        """
        if self.interaction == "none":
            return torch.zeros([known.shape[0]], device=known.device)
        means, peaks = self.decision.prototypes.tokens(
            query,
            state["mean"].flatten(1, 2),
            state["peak"].flatten(1, 2),
            known,
            self.decision.inside(query) & torch.logical_not(known),
        )
        if self.interaction == "mean":
            return prototype_loss(means)
        return prototype_loss(means) + prototype_loss(peaks)

    def _alignment(
        self, support: IPSFeatures, query: IPSFeatures, margins: Tensor, support_label: Tensor
    ) -> Tensor:
        """Segment the support by the query's prediction and mean prototypes, (B,)."""
        s = support_label.shape[1]
        predicted = (margins.detach() > 0).to(query.mid)
        whole = self._cells(torch.ones_like(predicted[:1, :1]), query)
        mean = class_means(query.mid, self._cells(predicted, query), whole)
        mean = mean.repeat_interleave(s, 0)  # (B * S, N, 2, C)
        returned = self.decision.prototypes.margins(support.mid, mean)
        returned = self.decision.to_image(returned, support.image_size)
        skipped = torch.logical_not(predicted.flatten(2).any(2))
        return alignment_loss(returned, support_label, skipped)

    def _map_loss(self, maps: Tensor, label: Tensor) -> Tensor:
        """Compare the pairs' margins (B, N * S, h, w), averaged over S, with the label, (B,)."""
        margins = maps.unflatten(1, [label.shape[1], -1]).mean(2)
        enlarged = self.decision.to_image(margins, (label.shape[-2], label.shape[-1]))
        # the weighted cross-entropy alone finds too much
        loss = margin_cross_entropy(enlarged, label, self.background_weight)
        return loss + soft_dice_loss(enlarged, label)

    def _cells(self, masks: Tensor, features: IPSFeatures) -> Tensor:
        """Return the share of each middle-level cell that masks (B, N, H, W) fill."""
        mid = features.mid
        return cell_shares(masks, (mid.shape[-2], mid.shape[-1]), self.stride)
