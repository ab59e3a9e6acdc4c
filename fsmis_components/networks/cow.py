"""CoW: slices are segmented by prototypes of what is hard (Jiang & Zhang, IJCAI 2025)."""

from typing import Dict, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cow_decoders import MapFusion, MeanFusion
from fsmis_components.layers.prototype_miner import PrototypeMiner, PrototypeSets
from fsmis_components.layers.resize import upsample_corners
from fsmis_components.layers.support_state import SupportState, support_state
from fsmis_components.losses import auxiliary_loss, margin_cross_entropy, self_prediction_loss
from fsmis_components.networks.few_shot_network import (
    FewShotNetwork,
    SliceFeatures,
    alignment_loss,
    all_labelled,
    check_switches,
    with_background,
)
from fsmis_components.ops.precision import unit_vectors

FUSIONS = ("decoder", "mean")
# Of a labelled slice without a pixel of the structure: the released code then decides as ADNet
# does, by half of the scaled cosine less a threshold, which is 10 at first; the cosine to a zero
# prototype is 0.
EMPTY_MARGIN = -5.0
ABSENT_MARGIN = -40.0


class CoW(FewShotNetwork):
    """Concentrate-on-weakness network, several structures and shots in one call.

    A support slice is segmented by its own mean prototype (SSP). What that gets wrong yields hard
    prototypes, the rest normal ones (HPG). A query is compared with all of them, and two decoders
    fuse the similarity maps into one foreground and one background map (MSMF). All that depends on
    the support alone is in the support state, as mixed vectors (see :class:`MapFusion`).

    Defaults are the paper's, made for ``resnet101_layer3`` and images of 256 x 256.

    The margins of sections are averaged by their weights; sections of weight 0 cost nothing. Where
    all are zero the structure is absent and its logit is -40.

    Args:
        encoder: see :func:`build_encoder`.
        num_prototypes: of foreground and background; 100 and 600 in the paper. The mean and an
            edge prototype are appended to each.
        num_hard: hard ones among them; 50 and 100 in the paper.
        prototype_grid: side of the square on which prototypes are mined; 256 in the paper.
        predictor_width: channels of the self-prediction decoder; 512 in the paper.
        fusion_widths: channels of the two fusion decoders; 100 and 600 in the paper.
        self_prediction: False: no self-prediction, no hard prototypes (ablation).
        hpg: False: no hard prototypes generation (ablation).
        fusion: ``decoder`` or ``mean``, the scaled mean of the maps (ablation).
        guided_init: begin as a comparison with local means, so that training from scratch is short;
            False: at random, as in the released code.
        background_weight: weight of background pixels in the query loss; 0.1 in the paper.
        support_pack: state of a support that ``net(image)`` uses; not part of the weights.

    Raises:
        ValueError: an unknown option, a switch that is no bool, or not two numbers where two
            are due.
    """

    enlarge = staticmethod(upsample_corners)

    def __init__(
        self,
        encoder: Union[str, nn.Module] = "resnet101_layer3",
        num_prototypes: Sequence[int] = (100, 600),
        num_hard: Sequence[int] = (50, 100),
        prototype_grid: int = 256,
        predictor_width: int = 512,
        fusion_widths: Sequence[int] = (100, 600),
        self_prediction: bool = True,
        hpg: bool = True,
        fusion: str = "decoder",
        guided_init: bool = False,
        background_weight: float = 0.1,
        support_pack: Optional[SupportState] = None,
    ) -> None:
        super().__init__(encoder, support_pack)
        self.background_weight = background_weight
        check_switches("CoW", self_prediction=self_prediction, hpg=hpg, guided_init=guided_init)
        if fusion not in FUSIONS:
            raise ValueError(f"CoW: expected fusion in {FUSIONS}, got {fusion!r}")
        widths = _pair(fusion_widths, "fusion_widths")
        self.miner = PrototypeMiner(
            int(self.encoder.out_channels),  # type: ignore[arg-type]
            _pair(num_prototypes, "num_prototypes"),
            _pair(num_hard, "num_hard"),
            prototype_grid,
            predictor_width,
            self_prediction,
            hpg,
            guided_init,
        )
        self.foreground_fusion, self.background_fusion = (
            MapFusion(number, width, guided_init=guided_init)
            if fusion == "decoder"
            else MeanFusion()
            for number, width in zip(self.miner.set_sizes, widths, strict=True)
        )
        self.fusion = fusion

    def build_support(
        self, features: SliceFeatures, masks: Tensor, valid: Tensor, seeds: Optional[Tensor] = None
    ) -> SupportState:
        """Mine and mix the prototypes of labelled support slices; see the base class."""
        if seeds is None:
            seeds = torch.zeros(valid.shape, dtype=torch.int64, device=valid.device)
        return self._state(self._mine(features, masks.flatten(0, 1), seeds.flatten(0, 1)), valid)

    def support_settings(self) -> Dict[str, Union[int, str]]:
        """Return what shapes a support state beside the weights; a stored pack must agree."""
        return {
            "grid": self.miner.grid,
            "hpg": "code" if self.miner.hpg else "none",  # as packs of all versions say
            "activation": "sigmoid",
            "fusion": self.fusion,
        }

    def _train_step(
        self, image: Tensor, support_image: Tensor, support_label: Tensor, label: Tensor
    ) -> Dict[str, Tensor]:
        b, s, n = support_label.shape[0], support_label.shape[1], support_label.shape[2]
        support, query = self._encode_episode(image, support_image)
        size = query.image_size
        sets = self._mine(support, support_label.flatten(0, 1), _new_seeds(b * s, n, image))
        state = self._state(sets, all_labelled(support_label))
        logits = self._to_image(self._margins(query.high, state, None), size)

        # roles swapped: the predicted mask, if it has a pixel, stands for the query's label
        predicted = (logits.detach() > 0).to(image)
        found = predicted.flatten(2).any(2)  # (B, N)
        swapped = self._mine(query, predicted, _new_seeds(b, n, image))
        back = self._state(swapped, found.unsqueeze(1))
        repeated = {name: tensor.repeat_interleave(s, 0) for name, tensor in back.items()}
        returned = self._to_image(self._margins(support.high, repeated, None), size)
        auxiliary = auxiliary_loss(
            _join_slices(sets.foreground, b),
            _join_slices(sets.background, b),
            swapped.foreground,
            swapped.background,
        )
        self_predicted = sets.predicted[:, :, : size[0], : size[1]]
        if self.miner.predictor is None:
            self_prediction = torch.zeros_like(auxiliary)
        else:
            self_prediction = (
                self_prediction_loss(self_predicted, support_label.flatten(0, 1))
                .reshape(b, s, n)
                .mean(1)
            )
        return {
            "logits": with_background(logits),
            "query_loss": margin_cross_entropy(logits, label, self.background_weight),
            "alignment_loss": alignment_loss(returned, support_label, torch.logical_not(found)),
            "auxiliary_loss": (auxiliary * found).mean(1),
            "self_prediction_loss": self_prediction.mean(1),
        }

    def _mine(self, features: SliceFeatures, masks: Tensor, seeds: Tensor) -> PrototypeSets:
        """Mine the slices (B, ...) of masks (B, N, H, W); the encoder's padding belongs nowhere."""
        bottom = features.high.shape[-2] * self.stride - masks.shape[-2]
        right = features.high.shape[-1] * self.stride - masks.shape[-1]
        masks = masks.to(torch.float32)
        inside = F.pad(torch.ones_like(masks[:, :1]), [0, right, 0, bottom])
        return self.miner(features.high, F.pad(masks, [0, right, 0, bottom]), inside, seeds)

    def _state(self, sets: PrototypeSets, valid: Tensor) -> SupportState:
        # the mean prototype is zero for an empty mask only
        return support_state(
            valid,
            empty=torch.logical_not(sets.foreground[:, :, -2].any(-1)),
            foreground=self.foreground_fusion.mix(sets.foreground),
            background=self.background_fusion.mix(sets.background),
        )

    def _margins(
        self, query: Tensor, state: SupportState, section_weights: Optional[Tensor]
    ) -> Tensor:
        """Return the margins at the features' size, averaged over sections, (B, N, h, w)."""
        unit = unit_vectors(query, 1).flatten(2)  # (B, C, h * w)
        b, size = query.shape[0], (query.shape[2], query.shape[3])
        weights = state["valid"].to(unit)  # (B or 1, N, S)
        if section_weights is None:
            margins = self._compare(unit, state["foreground"], state["background"], size)
            margins = torch.where(state["empty"][..., None, None], EMPTY_MARGIN, margins)
        else:
            weights = (weights * section_weights).expand(b, -1, -1)
            margins = self._compare_used(unit, state, weights, size)
        total = weights.sum(-1)[..., None, None]
        averaged = (margins * weights[..., None, None]).sum(2) / total.clamp_min(1e-12)
        return torch.where(total > 0, averaged, ABSENT_MARGIN)

    def _compare(
        self, unit: Tensor, foreground: Tensor, background: Tensor, size: Tuple[int, int]
    ) -> Tensor:
        """Return the margin of each section, (B, N, S, h, w), of unit features (B, C, h * w)."""
        front = _fused(self.foreground_fusion, unit, foreground, size)
        return front - _fused(self.background_fusion, unit, background, size)

    def _compare_used(
        self, unit: Tensor, state: SupportState, weights: Tensor, size: Tuple[int, int]
    ) -> Tensor:
        """Return as :func:`_compare`, slice by slice, 0 for sections of weight 0."""
        shape = weights.shape + size
        margins = torch.zeros(shape, device=unit.device)
        for i in range(shape[0]):
            n, s = torch.where(weights[i] > 0)
            # one support for all slices, or one for each
            empty, front, back = (
                state[name][min(i, state[name].shape[0] - 1)][n, s]
                for name in ("empty", "foreground", "background")
            )
            # (1, K, 1, J, C)
            front, back = front[None, :, None], back[None, :, None]
            found = self._compare(unit[i : i + 1], front, back, size)[0, :, 0].float()
            margins[i, n, s] = torch.where(empty[:, None, None], EMPTY_MARGIN, found)
        return margins


def _fused(fusion: nn.Module, unit: Tensor, vectors: Tensor, size: Tuple[int, int]) -> Tensor:
    """Compare with mixed vectors (B or 1, N, S, J, C) and fuse the maps: (B, N, S, h, w)."""
    b, n, s, j = unit.shape[0], vectors.shape[1], vectors.shape[2], vectors.shape[3]
    maps = torch.matmul(vectors.flatten(1, 3), unit).reshape(b * n * s, j, size[0], size[1])
    return fusion(maps).reshape(b, n, s, size[0], size[1])


def _new_seeds(slices: int, structures: int, image: Tensor) -> Tensor:
    return torch.randint(1 << 62, [slices, structures], device=image.device)


def _join_slices(prototypes: Tensor, b: int) -> Tensor:
    """Join the sets (B * S, N, P, C) of an episode's support slices: (B, N, S * P, C)."""
    return prototypes.unflatten(0, [b, -1]).transpose(1, 2).flatten(2, 3)


def _pair(numbers: Sequence[int], name: str) -> Tuple[int, int]:
    if len(numbers) != 2:
        raise ValueError(
            f"CoW: expected {name} for foreground and background, two numbers, got {list(numbers)}"
        )
    return int(numbers[0]), int(numbers[1])
