"""Training of a 2D U-Net from scratch on a few labelled scans, in the manner of nnU-Net.

nnU-Net is: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical
image segmentation, Nature Methods 18, 2021. Where a number is said to be nnU-Net's, it is that of
the paper and the released code (version 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from tqdm import tqdm

from fsmis_components.data.errors import DataError
from fsmis_components.data.weights import write_torch
from fsmis_components.transforms.contrast import ContrastRanges, apply_contrast, draw_contrast
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp

DEEP_OUTPUTS = 2  # outputs at half and quarter resolution that are supervised too
FOREGROUND_SHARE = 0.33  # of a batch that is sure to show a structure; nnU-Net: 0.33
LARGEST_GRADIENT = 12.0  # norm to which gradients are clipped; nnU-Net: 12
SAVE_EVERY = 100  # steps

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
class TrainingSettings:
    """What decides the weights besides data, machine and number of threads.

    Args:
        steps: batches; nnU-Net: 250,000.
        batch_size: slices per batch.
        filters: channels per level, from the full resolution down; nnU-Net: 32 to 512.
        learning_rate: at the start, it falls with (1 - step / steps)^0.9; nnU-Net: 0.01.
        momentum: Nesterov's; nnU-Net: 0.99.
        weight_decay: nnU-Net: 3e-5.
        seed: of the first weights, the slices drawn and their augmentation.
        amp: bfloat16 autocast.
    """

    steps: int
    batch_size: int
    filters: tuple[int, ...]
    learning_rate: float
    momentum: float
    weight_decay: float
    seed: int
    amp: bool


@dataclass(frozen=True)
class LabelledStack:
    """Labelled slices of all support scans.

    Args:
        images: normalised, float32 (D, 1, H, W).
        masks: bool (D, N, H, W).
    """

    images: Tensor
    masks: Tensor


def new_network(num_channels: int, filters: tuple[int, ...], seed: int) -> DynUNet:
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
            filters=filters,
            deep_supervision=True,
            deep_supr_num=DEEP_OUTPUTS,
        )


def train(
    network: nn.Module,
    stack: LabelledStack,
    settings: TrainingSettings,
    *,
    device: torch.device,
    unfinished: Path | None = None,
    title: str = "training",
    progress: bool = True,
) -> None:
    """Train a network in place, on the device.

    Args:
        network: from `new_network`; left in training mode.
        stack: what it learns from.
        settings: how.
        device: where.
        unfinished: file that holds the training under way; one that is there already is gone on
            with. None: the training starts anew and nothing is kept.
        title: what the bar says.
        progress: show the bar.

    Raises:
        DataError: the loss is no longer a number, or the file cannot be read.
    """
    network.to(device).train()
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    start = 0
    if unfinished is not None and unfinished.is_file():
        saved = read_tensors(unfinished)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    holding = _slices_per_structure(stack)
    steps = tqdm(
        range(start, settings.steps),
        desc=title,
        initial=start,
        total=settings.steps,
        unit="step",
        disable=not progress,
    )
    for step in steps:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps) ** 0.9
        # the draws of a step follow from its number, so that an interrupted training ends with the
        # weights of an uninterrupted one
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
        done = step + 1
        if unfinished is not None and done % SAVE_EVERY == 0 and done < settings.steps:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            write_tensors({**state, "step": done}, unfinished)


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


def read_tensors(path: Path) -> Any:
    """What `write_tensors` wrote, read as plain tensors on the CPU.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in the reader in any way
        raise DataError(f"{path}: damaged; delete it, and the network is trained anew.") from error


def write_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Write a dictionary of tensors and numbers, whole or not at all; a full disk: OSError."""
    write_torch(content, path)
