"""IPSNet: prototypes of support and query interact; reconstructed from an abstract."""

from typing import Dict, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import (
    cell_shares,
    cells_inside,
    chosen_cells,
    class_means,
)
from fsmis_components.layers.deep_module import DeepModule
from fsmis_components.layers.interactive_prototypes import InteractivePrototypes
from fsmis_components.layers.pair_decision import (
    FeatureExchange,
    IPSFeatures,
    PairDecision,
    PairMaps,
    take_slices,
)
from fsmis_components.layers.self_learning import SelfLearningDecoder
from fsmis_components.layers.self_support import SelfSupport
from fsmis_components.layers.support_state import SupportState, select_pairs
from fsmis_components.losses import margin_cross_entropy, prototype_loss, soft_dice_loss
from fsmis_components.networks.few_shot_network import (
    FewShotNetwork,
    all_labelled,
    check_switches,
    pad_slices,
    with_background,
)


class IPSNet(FewShotNetwork):
    """Interactive prototypes and query self-learning, several structures and shots in one call.

    A reconstruction: of Song et al. (Artif. Intell. Med. 167, 103183, 2025) the abstract alone is
    public. It names the modules, the level of features that each uses and what each is for; layers,
    sizes, losses and numbers are ours. Results are those of an "IPS-style" network, not of theirs.

    The finer one of the encoder's two upper levels carries mean prototypes; the coarser one enters
    the deep module, whose output carries peak prototypes.

    Args:
        encoder: see :func:`build_encoder`; a module needs ``channels`` and ``strides`` too.
        deep: kind of the :class:`DeepModule`, ``unet`` or ``linear``; ``none``: without it there
            are no peak prototypes (ablation).
        deep_width: channels of the high-level features.
        peak: see :class:`PeakPrototypes`.
        interaction: see :class:`InteractivePrototypes`.
        interaction_layers: of each interaction.
        feature_exchange: query cells attend to those of the support, see :class:`FeatureExchange`.
        self_learning: False: the interactive prototypes answer (ablation).
        separation: see :class:`SelfLearningDecoder`; so are the next four.
        split_width: channels of each separated map.
        decoder_widths: channels at the middle, low and edge level.
        low_level: ``both``, ``low`` or ``none``.
        low_level_gate: low-level maps count most at the boundary.
        adaptive_background: see :class:`SelfSupport`.
        background_grid: fields per side, at most, in which background is averaged first.
        confidence: thresholds of foreground and background, see :class:`ConfidentCells`.
        support_share: weight of the support's prototypes beside the query's own.
        area_ratio: the query's own prototypes are not used where its sure foreground is so many
            times larger or smaller than the support's structure.
        scale: factor of the cosines.
        true_query_prototypes: the prototype loss pools the query by its label, in training.
        warmup_steps: training steps in which the label replaces the preliminary mask, with a
            probability that falls from 1 to 0.
        background_weight: weight of background pixels in the cross-entropies of the query.
        support_pack: state of a support that ``net(image)`` uses; not part of the weights.

    Raises:
        ValueError: an unknown option, a switch that is no bool, or parts that need each other.
    """

    # TorchScript does not see the base's annotations beside those of a class's own
    stored_state: Dict[str, Tensor]
    steps: Tensor

    def __init__(
        self,
        encoder: Union[str, nn.Module] = "resnet101_levels",
        deep: str = "unet",
        deep_width: int = 256,
        peak: str = "channel_max",
        interaction: str = "both",
        interaction_layers: int = 1,
        feature_exchange: bool = False,
        self_learning: bool = True,
        separation: str = "masks",
        split_width: int = 128,
        decoder_widths: Sequence[int] = (256, 128, 64),
        low_level: str = "both",
        low_level_gate: bool = True,
        adaptive_background: bool = True,
        background_grid: int = 32,
        confidence: Sequence[float] = (0.7, 0.6),
        support_share: float = 0.5,
        area_ratio: float = 4.0,
        scale: float = 10.0,
        true_query_prototypes: bool = True,
        warmup_steps: int = 5000,
        background_weight: float = 0.1,
        support_pack: Optional[SupportState] = None,
    ) -> None:
        super().__init__(encoder, support_pack)
        check_switches(
            "IPSNet",
            feature_exchange=feature_exchange,
            self_learning=self_learning,
            low_level_gate=low_level_gate,
            adaptive_background=adaptive_background,
            true_query_prototypes=true_query_prototypes,
        )
        if len(confidence) != 2:
            raise ValueError(f"IPSNet: expected two thresholds, got {list(confidence)}")
        edge, low, middle, last = (int(c) for c in self.encoder.channels)  # type: ignore[union-attr]
        strides = [int(s) for s in self.encoder.strides]  # type: ignore[union-attr]
        self.swapped = strides[3] < strides[2]
        mid, top = (last, middle) if self.swapped else (middle, last)
        self.stride = min(strides[2], strides[3])
        high = 0 if deep == "none" else deep_width
        self.deep = DeepModule(top, mid, deep_width, deep) if high > 0 else None
        prototypes = InteractivePrototypes(
            mid,
            high,
            peak,
            interaction,
            interaction_layers,
            (float(confidence[0]), float(confidence[1])),
            support_share,
            scale,
        )
        self_support = decoder = None
        if self_learning:
            self_support = SelfSupport(
                support_share,
                adaptive=adaptive_background,
                grid=background_grid,
                scale=scale,
            )
            decoder = SelfLearningDecoder(
                (edge, low, mid, high),
                split_width,
                decoder_widths,
                low_level,
                low_level_gate,
                separation,
            )
        self.decision = PairDecision(
            prototypes,
            self_support,
            decoder,
            FeatureExchange(mid) if feature_exchange else None,
            self.stride,
            self.pad_multiple,
            area_ratio,
        )
        self.interaction = interaction
        self.peak = peak
        self.background_grid = background_grid
        self.true_query_prototypes = true_query_prototypes
        self.warmup_steps = warmup_steps
        self.background_weight = background_weight
        self.absent_margin = -40.0
        # kept with the weights, so that a training that goes on does not warm up again
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.jit.export
    def encode(self, image: Tensor) -> IPSFeatures:  # type: ignore[override]
        """Encode slices (B, 1, H, W) of any size into features at four levels."""
        levels = self.encoder(pad_slices(image, self.pad_multiple))
        mid, top = levels.mid, levels.high
        if self.swapped:
            mid, top = levels.high, levels.mid
        high = mid[:, :0] if self.deep is None else self.deep(top, mid)
        return IPSFeatures(levels.edge, levels.low, mid, high, (image.shape[-2], image.shape[-1]))

    @torch.jit.export
    def build_support(  # type: ignore[override]
        self, features: IPSFeatures, masks: Tensor, valid: Tensor, seeds: Optional[Tensor] = None
    ) -> SupportState:
        """Pool the prototypes of labelled support slices.

        Args:
            features: of the B*S support slices.
            masks: (B, S, N, H, W) in [0, 1].
            valid: whether structure n is labelled in slice s, (B, S, N) bool.
            seeds: unused; this method draws nothing at random.

        Returns:
            A state whose tensors start with (B, N or 1, S).
        """
        b, s = valid.shape[0], valid.shape[1]
        shares = self._cells(masks.flatten(0, 1), features)  # (B * S, N, h, w)
        whole = self._cells(torch.ones_like(masks[:1, 0, :1]), features)
        mean = class_means(features.mid, shares, whole)  # (B * S, N, 2, C)
        front = chosen_cells(shares)
        back = self._inside(features) & torch.logical_not(front)
        peak = self.decision.prototypes.peaks(features.high, front, back)
        area = shares.flatten(2).sum(2)
        state: Dict[str, Tensor] = {
            "valid": valid.transpose(1, 2),
            "area": area.unflatten(0, [b, s]).transpose(1, 2),
            "mean": mean.unflatten(0, [b, s]).transpose(1, 2),
            "peak": peak.unflatten(0, [b, s]).transpose(1, 2),
        }
        if self.decision.exchange is not None:
            cells = F.adaptive_avg_pool2d(
                features.mid, (self.background_grid, self.background_grid)
            )
            state["cells"] = cells.flatten(2).transpose(1, 2).unflatten(0, [b, s]).unsqueeze(1)
        return state

    @torch.jit.export
    def segment(  # type: ignore[override]
        self,
        query_features: IPSFeatures,
        state: SupportState,
        section_weights: Optional[Tensor] = None,
    ) -> Tensor:
        """Return logits (B, 1 + N, H, W) of query slices; channel 0 is zero.

        Args:
            query_features: of B query slices.
            state: of one support for all slices, or of one for each.
            section_weights: (B or 1, N, S) >= 0: the margins of sections are averaged with these
                weights; sections of weight 0 cost nothing. Where all are zero the structure is
                absent and its logit is -40. None uses every labelled section alike.
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
            decided = self._answer(query_features, state, None, None).decided.unflatten(1, [n, s])
            margins = (decided * weights[..., None, None]).sum(2)
        else:
            margins = torch.zeros([b, n, size[0], size[1]], device=weights.device)
            # slice by slice, so that features of pairs never exist for the whole batch
            for i in range(b):
                slices = take_slices(query_features, i, i + 1)
                margins[i] = self._summed(slices, state, i, weights[i])[0]
        averaged = torch.where(total > 0, margins / total.clamp_min(1e-12), self.absent_margin)
        return with_background(averaged)

    @torch.jit.unused
    def decide(self, query_features: IPSFeatures, state: SupportState) -> PairMaps:
        """Return what all pairs of B query slices and (N, S) supports answer on the way."""
        n, s = state["valid"].shape[1:]
        answer = self._answer(query_features, state, None, None)
        return PairMaps(*(entry.unflatten(1, [n, s]) for entry in answer))

    @torch.jit.unused
    def support_settings(self) -> Dict[str, Union[int, str]]:
        """Return what shapes a support state beside the weights; a stored pack must agree."""
        cells = 0 if self.decision.exchange is None else self.background_grid
        return {"peak": self.peak, "cells": cells}

    def _train_step(
        self, image: Tensor, support_image: Tensor, support_label: Tensor, label: Tensor
    ) -> Dict[str, Tensor]:
        b, s, n = support_label.shape[0], support_label.shape[1], support_label.shape[2]
        joined = self.encode(torch.cat([support_image.flatten(0, 1), image], 0))
        support = take_slices(joined, 0, b * s)
        query = take_slices(joined, b * s, b * s + b)
        state = self.build_support(support, support_label, all_labelled(support_label), None)

        share = (self.warmup_steps - self.steps) / max(1, self.warmup_steps)
        told = torch.rand([b], device=image.device) < share
        self.steps += 1
        # Q = N * S pairs of each query slice
        known = chosen_cells(self._cells(label == 1, query)).repeat_interleave(s, 1)
        answer = self._answer(query, state, known, told)
        margins = answer.decided.unflatten(1, [n, s]).mean(2)
        terms: Dict[str, Tensor] = {
            "logits": with_background(margins),
            "query_loss": margin_cross_entropy(margins, label, self.background_weight),
            "dice_loss": soft_dice_loss(margins, label),
            "intermediate_loss": self._map_loss(answer.intermediate, label),
            "guidance_loss": self._map_loss(answer.guidance, label),
            "self_loss": self._map_loss(answer.own, label),
            "prototype_loss": self._prototype_loss(answer, query, state, known),
            "alignment_loss": self._alignment(support, query, margins, support_label),
        }
        nothing = torch.zeros_like(terms["query_loss"])
        if self.deep is None:
            terms["guidance_loss"] = nothing
        if self.decision.self_support is None:  # the intermediate map is the decision
            terms["intermediate_loss"] = terms["self_loss"] = nothing
        return terms

    def _answer(
        self,
        query: IPSFeatures,
        state: SupportState,
        known: Optional[Tensor],
        told: Optional[Tensor],
    ) -> PairMaps:
        """Answer for B query slices and the N * S pairs of one state, or of one for each."""
        b = query.mid.shape[0]
        cells: Optional[Tensor] = None
        if "cells" in state:
            n = state["valid"].shape[1]
            cells = state["cells"].expand(b, n, -1, -1, -1).flatten(1, 2)
        return self.decision(
            [query.edge, query.low, query.mid, query.high],
            state["mean"].expand(b, -1, -1, -1, -1).flatten(1, 2),
            state["peak"].expand(b, -1, -1, -1, -1).flatten(1, 2),
            state["area"].expand(b, -1, -1).flatten(1, 2),
            cells,
            query.image_size,
            known,
            told,
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
        found = self._answer(query, select_pairs(state, batch, used), None, None).decided
        # (N, Q): a product is the same sum each time, adding by index is not on a GPU
        share = F.one_hot(used // s, n).transpose(0, 1) * weights.flatten()[used]
        summed = torch.matmul(share, found.float().flatten(2))
        return summed.reshape([b, n, size[0], size[1]])

    def _prototype_loss(
        self, answer: PairMaps, query: IPSFeatures, state: SupportState, known: Tensor
    ) -> Tensor:
        """Classes agree between the sides and differ on each side, at both levels, (B,)."""
        means, peaks = answer.mean_tokens, answer.peak_tokens
        if self.true_query_prototypes:
            means, peaks = self.decision.prototypes.tokens(
                query.mid,
                query.high,
                state["mean"].flatten(1, 2),
                state["peak"].flatten(1, 2),
                known,
                self._inside(query) & torch.logical_not(known),
            )
        loss = torch.zeros([known.shape[0]], device=means.device)
        if self.interaction in ("mean", "both", "loss"):
            loss = prototype_loss(means)
        if self.interaction in ("peak", "both", "loss") and self.deep is not None:
            loss = loss + prototype_loss(peaks)
        return loss

    def _alignment(
        self, support: IPSFeatures, query: IPSFeatures, margins: Tensor, support_label: Tensor
    ) -> Tensor:
        """Segment the support by the query's prediction and mean prototypes, (B,).

        Prototype alignment regularisation (PANet; Wang et al., ICCV 2019).
        """
        b, s = support_label.shape[0], support_label.shape[1]
        predicted = (margins.detach() > 0).to(query.mid)
        whole = self._cells(torch.ones_like(predicted[:1, :1]), query)
        mean = class_means(query.mid, self._cells(predicted, query), whole)
        mean = mean.repeat_interleave(s, 0)  # (B * S, N, 2, C)
        returned = self.decision.prototypes.margins(support.mid, mean)
        returned = self.decision.to_image(returned, support.image_size)
        skipped = torch.logical_not(predicted.flatten(2).any(2)).repeat_interleave(s, 0)
        ignored = 255.0
        truth = support_label.flatten(0, 1).masked_fill(skipped[:, :, None, None], ignored)
        return margin_cross_entropy(returned, truth).reshape(b, s).mean(1)

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

    def _inside(self, features: IPSFeatures) -> Tensor:
        """Return which cells (1, h, w) hold a pixel of the image."""
        mid = features.mid
        grid = (mid.shape[-2], mid.shape[-1])
        return cells_inside(features.image_size, grid, self.stride, mid.device)
