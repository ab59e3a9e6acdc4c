"""A supervised U-Net, trained on nothing but the labelled scans: what one does without few-shot.

nnU-Net is: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical
image segmentation, Nature Methods 18, 2021. Where a number is said to be nnU-Net's, it is that of
the paper and the released code (version 2).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks import eval_mode
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from tqdm import tqdm

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.volumes import Volume
from fsmis_components.data.weights import read_state_dict, write_torch
from fsmis_components.evaluation.subjects.base import Group, Subject
from fsmis_components.evaluation.subjects.slicewise import (
    label_map,
    on_canvas,
    scan_slices,
)
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
# nnU-Net: gamma 0.7 to 1.5, noise of variance up to 0.1, blur of up to 1 pixel; the bias field is
# not in nnU-Net
CONTRASTS = ContrastRanges(num_levels=0, gamma=(0.7, 1.5), bias=0.3, blur_sigma=1.0, noise_std=0.3)
CONTRAST = (0.75, 1.25)  # factors; nnU-Net: the same
BRIGHTNESS = 0.25  # largest offset, in standard deviations of the scan


@dataclass(frozen=True)
class LabelledStack:
    """Labelled slices of all support scans.

    Args:
        images: normalised, float32 (D, 1, H, W).
        masks: bool (D, N, H, W).
    """

    images: Tensor
    masks: Tensor


def new_network(num_channels: int, filters: Sequence[int], seed: int) -> DynUNet:
    """A U-Net for slices with logits of `num_channels` channels, background included.

    The same seed gives the same weights; the global random state stays as it is.
    """
    levels = len(filters)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return DynUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=num_channels,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(filters),
            deep_supervision=True,
            deep_supr_num=DEEP_OUTPUTS,
        )


def train(
    network: nn.Module,
    stack: LabelledStack,
    settings: SupervisedUNet,
    title: str = "training",
) -> None:
    """Train a network in place, on the settings' device.

    Args:
        network: from `new_network`; left in training mode.
        stack: what it learns from.
        settings: how.
        title: what the bar says.

    Raises:
        DataError: the loss is no longer a number.
    """
    device = torch.device(settings.device)
    network.to(device).train()
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    holding = _slices_per_structure(stack)
    steps = tqdm(range(settings.steps), desc=title, unit="step", disable=not settings.progress)
    for step in steps:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps) ** 0.9
        rng = np.random.default_rng([settings.seed, step])
        image, label = draw_batch(stack, holding, settings.batch_size, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            outputs = network(image.to(device))
        loss = _loss(outputs.float(), label.to(device))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(
                f"supervised_unet: the loss of step {step} is no number; lower the learning rate."
            )
        steps.set_postfix(loss=f"{value:.3f}", refresh=False)


def draw_batch(
    stack: LabelledStack, holding: list[list[int]], batch_size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw slices, the first ones so that they show a structure, and augment them.

    Args:
        stack: the labelled slices.
        holding: per structure the slices that show it; none is empty.
        batch_size: number of slices B.
        rng: where all chance comes from.

    Returns:
        Images (B, 1, H, W) and class numbers (B, 1, H, W), 0 background, 1 + i structure i.
    """
    images, labels = [], []
    for place in range(batch_size):
        if place < round(FOREGROUND_SHARE * batch_size):
            own = holding[rng.integers(len(holding))]
            index = own[rng.integers(len(own))]
        else:
            index = int(rng.integers(len(stack.images)))
        image, masks = _augmented(stack.images[index], stack.masks[index], rng)
        images.append(image)
        labels.append(torch.where(masks.any(0), 1 + masks.byte().argmax(0), 0)[None])
    return torch.stack(images), torch.stack(labels)


def _augmented(image: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    ranges = replace(WARPS, translation=TRANSLATION * max(image.shape))
    image, masks = apply_warp(image, masks, draw_warp(rng, ranges), padding="minimum")
    image = apply_contrast(image, draw_contrast(rng, CONTRASTS))
    return image * rng.uniform(*CONTRAST) + rng.uniform(-BRIGHTNESS, BRIGHTNESS), masks


def _loss(outputs: Tensor, label: Tensor) -> Tensor:
    """Dice and cross-entropy of outputs (B, 1 + deep, C, H, W), each level with half the weight."""
    # as in nnU-Net the Dice is that of the batch, and without background
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    weights = [0.5**level for level in range(outputs.shape[1])]
    losses = [
        weight / sum(weights) * criterion(output, label)
        for weight, output in zip(weights, outputs.unbind(1), strict=True)
    ]
    return torch.stack(losses).sum()


def _slices_per_structure(stack: LabelledStack) -> list[list[int]]:
    present = stack.masks.flatten(2).any(-1)  # (D, N)
    return [torch.nonzero(column).flatten().tolist() for column in present.T]


@dataclass(eq=False)
class SupervisedUNet(Subject):
    """Train a 2D U-Net from scratch on the K labelled scans, segment by it, label-blind.

    The network is MONAI's `DynUNet`, trained as nnU-Net is (Isensee et al., Nature Methods 18,
    2021; the constants say where it departs), far shorter and smaller, so that a laptop can do
    it. It segments all structures at once. Slices, intensities and the way back to the scan's grid
    are those of the bundles. The same seed, machine and number of threads give the same weights,
    bit for bit; the global random state is not touched. The defaults were the first that were tried
    (on CHAOS-T2, fold 0) and were kept, so no test score has chosen them.

    Args:
        steps: batches of the training; nnU-Net: 250,000.
        batch_size: slices per batch, in training and inference.
        spatial_size: pixels that the larger in-plane extent of the first scan fills.
        filters: channels per level, from the full resolution down; nnU-Net: 32 to 512.
        learning_rate: at the start, it falls with (1 - step / steps)^0.9; nnU-Net: 0.01.
        momentum: Nesterov's; nnU-Net: 0.99.
        weight_decay: nnU-Net: 3e-5.
        seed: of the first weights, the slices drawn and their augmentation.
        amp: bfloat16 autocast.
        device: where the network is trained and applied.
        cache_dir: keeps trained weights, so that an interrupted benchmark does not train twice;
            None: nothing is kept on disk.
        modality: "mr", "ct" or "auto" (by the first scan's intensities).
        slice_axis: as in `choose_slice_grid`.
        ignore_spacing: as in `choose_slice_grid`.
        progress: show a bar of the training.

    Raises:
        DataError: no step, no slice per batch, or too few levels.
    """

    steps: int = 800
    batch_size: int = 4
    spatial_size: int = 192
    filters: Sequence[int] = (24, 48, 96, 192, 256)
    learning_rate: float = 0.01
    momentum: float = 0.99
    weight_decay: float = 3e-5
    seed: int = 0
    amp: bool = False
    device: torch.device | str = "cpu"
    cache_dir: str | Path | None = None
    modality: str = "auto"
    slice_axis: str | int = "auto"
    ignore_spacing: bool = False
    progress: bool = True

    name = "supervised_unet"
    labelled = ("all",)

    def __post_init__(self) -> None:
        self.filters = tuple(self.filters)
        self._trained: tuple[str, nn.Module] | None = None
        if self.steps < 1 or self.batch_size < 1 or len(self.filters) < DEEP_OUTPUTS + 2:
            raise DataError(
                f"supervised_unet: expected steps and batch_size of at least 1 and filters for at "
                f"least {DEEP_OUTPUTS + 2} levels, got {self.steps}, {self.batch_size} and "
                f"{list(self.filters)}."
            )

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`; the weights follow from these and from the support."""
        known = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        del known["cache_dir"], known["progress"]
        device = torch.device(self.device).type
        return {**known, "filters": list(self.filters), "device": device}

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`; the first query of a support also trains.

        Raises:
            DataError: only three slices per structure are labelled, a structure vanishes at the
                working resolution, or the training fails.
        """
        network = self.trained(support)
        grid, normalisation = self._geometry(support)
        view = SliceView(query_image, grid)
        normalise = fit_normaliser(query_image, normalisation)
        size = self._canvas([view])
        device = torch.device(self.device).type
        winners = []
        with eval_mode(network), torch.inference_mode():
            for start in range(0, view.depth, self.batch_size):
                stop = min(start + self.batch_size, view.depth)
                image = on_canvas(normalise(view.slices(start, stop)), size).to(self.device)
                with torch.autocast(device, torch.bfloat16, enabled=self.amp):
                    logits = network(image)
                logits = view.to_native_logits(centre_fit(logits, view.working_size))
                winners.append(logits.argmax(1).cpu())
        return label_map(view, [structure.value for structure in support.structures], winners)

    def trained(self, support: SupportSet) -> nn.Module:
        """The network of a support: that of the last call, one from the cache, or a new one."""
        if support.slices != "all":
            raise DataError(
                "supervised_unet: learns from completely labelled slices, but of this support only "
                "three per structure are labelled; use it with all slices."
            )
        key = self._key(support)
        if self._trained is None or self._trained[0] != key:
            self._trained = (key, self._train(support, key))
        return self._trained[1]

    def _train(self, support: SupportSet, key: str) -> nn.Module:
        channels = 1 + len(support.structures)
        network = new_network(channels, self.filters, self.seed)
        kept = None if self.cache_dir is None else Path(self.cache_dir) / f"unet_{key[:16]}.pt"
        if kept is not None and kept.is_file():
            network.load_state_dict(read_state_dict(kept))
            return network.to(self.device)
        title = "training on " + "+".join(scan.name for scan in support.scans)
        train(network, self._stack(support), self, title)
        if kept is not None:
            write_torch(network.state_dict(), kept)
        return network

    def _geometry(self, support: SupportSet) -> tuple[SliceGrid, Normalisation]:
        first = support.scans[0].image
        grid = choose_slice_grid(
            first,
            spatial_size=self.spatial_size,
            slice_axis=self.slice_axis,
            ignore_spacing=self.ignore_spacing,
        )
        return grid, Normalisation(modality=resolve_modality(first, self.modality))

    def _canvas(self, views: Sequence[SliceView]) -> tuple[int, int]:
        """Height and width that hold all slices and that the network can halve at each level."""
        step = 2 ** (len(self.filters) - 1)
        height, width = (
            max(2, *(-(-view.working_size[axis] // step) for view in views)) * step
            for axis in (0, 1)
        )
        return height, width

    def _stack(self, support: SupportSet) -> LabelledStack:
        grid, normalisation = self._geometry(support)
        values = [structure.value for structure in support.structures]
        size = self._canvas([SliceView(scan.image, grid) for scan in support.scans])
        images, masks = [], []
        for scan in support.scans:
            normalise = fit_normaliser(scan.image, normalisation)
            images.append(scan_slices(SliceView(scan.image, grid), normalise, size))
            masks.append(centre_fit(structure_masks(SliceView(scan.label, grid), values), size))
        stack = LabelledStack(torch.cat(images), torch.cat(masks))
        found = stack.masks.transpose(0, 1).flatten(1).any(1)
        for structure, present in zip(support.structures, found, strict=True):
            if not present:
                raise DataError(
                    f"{support.source}: structure {structure.name} (label value "
                    f"{structure.value}) is smaller than one pixel at spatial_size "
                    f"{self.spatial_size}; raise it."
                )
        return stack

    def _key(self, support: SupportSet) -> str:
        """SHA-256 over all that decides the weights, number of threads and PyTorch included."""
        settings = {
            **self.identity(0, None),
            "values": [structure.value for structure in support.structures],
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for scan in support.scans:
            for volume in (scan.image, scan.label):
                voxels = np.ascontiguousarray(volume.data)
                digest.update(f"{voxels.dtype} {voxels.shape} {volume.affine.tolist()}".encode())
                digest.update(voxels.data)
        return digest.hexdigest()
