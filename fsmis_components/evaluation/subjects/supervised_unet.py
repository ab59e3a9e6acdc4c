"""A supervised U-Net, trained on nothing but the labelled scans: what one does without few-shot.

nnU-Net is: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical
image segmentation, Nature Methods 18, 2021. Where a number is said to be nnU-Net's, it is that of
the paper and the released code (version 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks import eval_mode
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from tqdm import tqdm

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Group, Subject, label_map, scan_slices
from fsmis_components.support.encode import structure_masks
from fsmis_components.support.support_set import SupportSet
from fsmis_components.transforms.contrast import ContrastRanges, apply_contrast, draw_contrast
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp

DEEP_OUTPUTS = 2  # outputs at half and quarter resolution that are supervised too
FOREGROUND_SHARE = 0.33  # of a batch that is sure to show a structure; nnU-Net: 0.33
LARGEST_GRADIENT = 12.0  # norm to which gradients are clipped; nnU-Net: 12

# nnU-Net: rotation by 30 degrees (in 3D; its 2D slices turn freely, which here would hide what is
# left and what is superior), zoom 0.7 to 1.4, in a fifth of the slices each, no elastic bending,
# mirroring. One scan shows one anatomy, so here every slice is bent; none is mirrored, because a
# mirrored right kidney is a left one.
WARPS = WarpRanges(
    rotation=20.0, shear=8.0, zoom=(0.75, 1.3), elastic_alpha=50.0, shear_about="centre"
)
TRANSLATION = 0.06  # of the slice's larger side
# nnU-Net: gamma 0.7 to 1.5, noise of variance up to 0.1, blur of up to 1 pixel, no bias field
CONTRASTS = ContrastRanges(num_levels=0, gamma=(0.7, 1.5), bias=0.3, blur_sigma=1.0, noise_std=0.3)
CONTRAST = (0.75, 1.25)  # factors; nnU-Net: the same
BRIGHTNESS = 0.25  # largest offset, in standard deviations of the scan


@dataclass(eq=False)
class SupervisedUNet(Subject):
    """Train a 2D U-Net from scratch on the K labelled scans, segment by it, label-blind.

    The network is MONAI's `DynUNet`, trained as nnU-Net is (the constants say where it departs),
    far shorter and smaller, so that a laptop can do it. Slices, intensities and the way back to the
    scan's grid are those of the bundles. The same seed, machine and number of threads give the same
    weights, bit for bit. The defaults were the first that were tried (on CHAOS-T2, fold 0).
    """

    steps: int = 800  # batches of the training; nnU-Net: 250,000
    batch_size: int = 4  # slices, in training and inference
    spatial_size: int = 192  # pixels that the larger in-plane extent of the first scan fills
    # channels per level, from the full resolution down; nnU-Net: 32 to 512
    filters: Sequence[int] = (24, 48, 96, 192, 256)
    learning_rate: float = 0.01  # at first, it falls with (1 - step / steps)^0.9; nnU-Net: 0.01
    momentum: float = 0.99  # Nesterov's; nnU-Net: 0.99
    weight_decay: float = 3e-5  # nnU-Net: 3e-5
    seed: int = 0  # of the first weights, the slices drawn and their augmentation
    amp: bool = False  # bfloat16 autocast
    device: torch.device | str = "cpu"
    modality: str = "auto"  # "mr", "ct" or "auto" (by the first scan's intensities)
    slice_axis: str | int = "auto"  # this and the next as in `choose_slice_grid`
    ignore_spacing: bool = False
    progress: bool = True  # a bar of the training

    name = "supervised_unet"
    labelled = ("all",)

    def __post_init__(self) -> None:
        self._trained: tuple[SupportSet, nn.Module] | None = None

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`; the weights follow from these and from the support."""
        known = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        del known["progress"]
        return {**known, "filters": list(self.filters), "device": torch.device(self.device).type}

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`; the first query of a support also trains."""
        if self._trained is None or self._trained[0] is not support:
            self._trained = (support, self.train(support))
        network = self._trained[1]
        grid, normalisation = self._geometry(support)
        view = SliceView(query_image, grid)
        normalise = fit_normaliser(view.volume, normalisation)
        slices = scan_slices(view, normalise, self._canvas([view]))
        winners = []
        with eval_mode(network), torch.inference_mode():
            for image in slices.split(self.batch_size):
                with self._autocast():
                    logits = network(image.to(self.device))
                logits = view.to_native_logits(centre_fit(logits, view.working_size))
                winners.append(logits.argmax(1).cpu())
        return label_map(view, [structure.value for structure in support.structures], winners)

    def train(self, support: SupportSet) -> nn.Module:
        """A network that has learned a support, in training mode."""
        images, masks = self._stack(support)
        network = self._new_network(1 + len(support.structures)).to(self.device).train()
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=True,
            weight_decay=self.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: (1 - step / self.steps) ** 0.9
        )
        # as in nnU-Net the Dice is that of the batch, and without background
        dice_ce = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        weights = [0.5**level for level in range(1 + DEEP_OUTPUTS)]
        criterion = DeepSupervisionLoss(dice_ce, weights=[w / sum(weights) for w in weights])
        title = "training on " + "+".join(scan.name for scan in support.scans)
        bar = tqdm(range(self.steps), desc=title, unit="step", disable=not self.progress)
        for step in bar:
            rng = np.random.default_rng([self.seed, step])
            image, label = draw_batch(images, masks, self.batch_size, rng)
            with self._autocast():
                outputs = network(image.to(self.device))  # (B, 1 + DEEP_OUTPUTS, C, H, W)
            loss = criterion(list(outputs.float().unbind(1)), label.to(self.device))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            if not loss.isfinite():
                raise DataError(
                    f"supervised_unet: the loss of step {step} is no number; lower the learning "
                    "rate."
                )
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        return network

    def _stack(self, support: SupportSet) -> tuple[Tensor, Tensor]:
        """Normalised slices (D, 1, H, W) of all support scans, and masks, bool (D, N, H, W)."""
        grid, normalisation = self._geometry(support)
        values = [structure.value for structure in support.structures]
        views = [SliceView(scan.image, grid) for scan in support.scans]
        labels = [SliceView(scan.label, grid) for scan in support.scans]
        size = self._canvas(views)
        images = torch.cat(
            [scan_slices(v, fit_normaliser(v.volume, normalisation), size) for v in views]
        )
        masks = torch.cat([centre_fit(structure_masks(label, values), size) for label in labels])
        for index, structure in enumerate(support.structures):
            if not masks[:, index].any():
                raise DataError(
                    f"{support.source}: structure {structure.name} (label value "
                    f"{structure.value}) is smaller than one pixel at spatial_size "
                    f"{self.spatial_size}; raise it."
                )
        return images, masks

    def _new_network(self, num_channels: int) -> DynUNet:
        levels = len(self.filters)
        with torch.random.fork_rng(devices=[]):  # the global random state stays as it is
            torch.default_generator.manual_seed(self.seed)
            return DynUNet(
                spatial_dims=2,
                in_channels=1,
                out_channels=num_channels,
                kernel_size=[3] * levels,
                strides=[1] + [2] * (levels - 1),
                upsample_kernel_size=[2] * (levels - 1),
                filters=list(self.filters),
                deep_supervision=True,
                deep_supr_num=DEEP_OUTPUTS,
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.amp)

    def _geometry(self, support: SupportSet) -> tuple[SliceGrid, Normalisation]:
        first = support.scans[0].image
        names = ("spatial_size", "slice_axis", "ignore_spacing")
        grid = choose_slice_grid(first, **{name: getattr(self, name) for name in names})
        return grid, Normalisation(modality=resolve_modality(first, self.modality))

    def _canvas(self, views: Sequence[SliceView]) -> tuple[int, int]:
        """Height and width that hold all slices and that the network can halve at each level."""
        step = 2 ** (len(self.filters) - 1)
        rows, columns = np.max([view.working_size for view in views], axis=0).tolist()
        return max(2, -(-rows // step)) * step, max(2, -(-columns // step)) * step


def draw_batch(
    images: Tensor, masks: Tensor, batch_size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw slices, the first ones so that they show a structure, and augment them.

    Args:
        images: slices (D, 1, H, W).
        masks: bool (D, N, H, W); each structure is somewhere.
        batch_size: number of slices B.
        rng: where all chance comes from.

    Returns:
        Images (B, 1, H, W) and class numbers (B, 1, H, W), 0 background, 1 + i structure i.
    """
    present = masks.flatten(2).any(-1)  # (D, N)
    holding = [torch.nonzero(column).flatten().tolist() for column in present.T]
    ranges = replace(WARPS, translation=TRANSLATION * max(images.shape[1:]))
    drawn = []
    for place in range(batch_size):
        if place < round(FOREGROUND_SHARE * batch_size):
            candidates = holding[rng.integers(len(holding))]
            index = candidates[rng.integers(len(candidates))]
        else:
            index = int(rng.integers(len(images)))
        warp = draw_warp(rng, ranges)
        image, mask = apply_warp(images[index], masks[index], warp, padding="minimum")
        image = apply_contrast(image, draw_contrast(rng, CONTRASTS))
        image = image * rng.uniform(*CONTRAST) + rng.uniform(-BRIGHTNESS, BRIGHTNESS)
        drawn.append((image, torch.where(mask.any(0), 1 + mask.byte().argmax(0), 0)[None]))
    batch, labels = zip(*drawn, strict=True)
    return torch.stack(batch), torch.stack(labels)
