"""The field's evaluation, EP1 under the support rule `ep1-alp`, beside whole-volume Dice.

EP1 tells the method where each structure begins and ends, from the query's own label. It serves to
compare with papers; the whole-volume column is what a user gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.folds import fold_split
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.dice import dice
from fsmis_components.evaluation.mask_copy import copy_masks, support_masks
from fsmis_components.inferers.matching import section_weights
from fsmis_components.inferers.slabs import Slab, encode_slabs, segment_slab
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.support.encode import build_support_pack, frozen, structure_slices
from fsmis_components.support.sections import section_of_slice
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportSet, Wanted, support_set_of_cases


@dataclass(frozen=True)
class Ep1Row:
    """Dice in percent of one structure of one case; NaN where the case does not hold it.

    Args:
        fold: fold of the case; -1 outside folds.
        case: the query.
        support: the labelled scan or scans.
        structure: name of the structure.
        value: its label value.
        ep1: three sections by the true extent, scored inside it, at the working resolution.
        mask_copy: the floor under the same rule: the support's masks, the image never read.
        whole_volume: label-blind, scored on all voxels of the native grid; NaN when not asked.
    """

    fold: int
    case: str
    support: str
    structure: str
    value: int
    ep1: float
    mask_copy: float
    whole_volume: float


@dataclass(frozen=True)
class Ep1Score:
    """The figures of one case and the masks behind them.

    Args:
        rows: one per structure.
        predicted: bool (D, N, H, W) at the working resolution, empty outside the scored slices.
        labelled: the label alike.
    """

    rows: list[Ep1Row]
    predicted: torch.Tensor
    labelled: torch.Tensor


def evaluate_fold(
    network: nn.Module,
    cases: Sequence[Case],
    fold: int,
    *,
    num_folds: int = 5,
    structures: Wanted = None,
    names: dict[int, str] | None = None,
    spatial_size: int = 256,
    modality: str = "auto",
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
    batch_size: int = 8,
    amp: bool = False,
    whole_volume: bool = True,
    progress: bool = True,
) -> list[Ep1Row]:
    """Score one fold: its cases are queries, the next case is the support.

    Args:
        network: a network of the contract.
        cases: all labelled cases, in the finder's order.
        fold: fold of `fold_split`.
        num_folds: number of folds.
        structures: as in `load_support_set`.
        names: name per label value.
        spatial_size: as in `build_support_pack`.
        modality: as in `build_support_pack`.
        slice_axis: as in `build_support_pack`.
        ignore_spacing: as in `build_support_pack`.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        whole_volume: also the label-blind figure, from the same features.
        progress: show a bar.

    Returns:
        One row per case and structure.
    """
    split = fold_split(cases, fold, num_folds)
    support = support_set_of_cases(split.support, structures=structures, names=names)
    pack = build_support_pack(
        network,
        support,
        spatial_size=spatial_size,
        modality=modality,
        slice_axis=slice_axis,
        ignore_spacing=ignore_spacing,
        batch_size=batch_size,
        amp=amp,
    )
    inferer = VolumeInferer(pack, batch_size=batch_size, amp=amp) if whole_volume else None
    rows: list[Ep1Row] = []
    for case in tqdm(split.test, desc=f"fold {fold}", unit="case", disable=not progress):
        score = score_case(
            network,
            case,
            support,
            pack,
            inferer=inferer,
            fold=fold,
            batch_size=batch_size,
            amp=amp,
        )
        rows += score.rows
    return rows


def score_case(
    network: nn.Module,
    case: Case,
    support: SupportSet,
    pack: SupportPack,
    *,
    inferer: VolumeInferer | None = None,
    fold: int = -1,
    batch_size: int = 8,
    amp: bool = False,
) -> Ep1Score:
    """Score one query.

    Args:
        network: a network of the contract; left in the mode in which it came.
        case: image and label of the query.
        support: the labelled scans; they give the mask-copy floor.
        pack: their encoding.
        inferer: makes the whole-volume segmentation; None leaves that column NaN.
        fold: written into the rows.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.

    Raises:
        DataError: the case has no label, or one of its files cannot be used.
    """
    if case.label is None:
        raise DataError(f"{case.image}: evaluation needs a label, none was found beside it.")
    image = load_image(case.image)
    label = load_label(case.label, image)
    view = SliceView(image, pack.grid)
    values = [structure.value for structure in pack.structures]
    slices, masks = structure_slices(SliceView(label, pack.grid), values)
    chosen = true_sections(slices, view.depth)

    with frozen(network), torch.inference_mode():
        encoded = encode_slabs(network, image, view, pack, batch_size=batch_size, amp=amp)
        slabs = list(encoded)
        predicted = _binary_masks(network, slabs, pack, chosen, amp)
        blind = None
        if inferer is not None:
            blind = inferer.segment_slabs(slabs, view, pack, network).label
    copied = copy_masks(support_masks(support, pack.grid), chosen, masks.shape[-2:])
    scored = (chosen >= 0)[..., None, None]
    predicted, masks = predicted & scored, masks & scored

    native = np.asarray(label.data)
    rows = []
    for index, structure in enumerate(pack.structures):
        whole = float("nan")
        if blind is not None:
            whole = dice(blind == structure.value, native == structure.value)
        rows.append(
            Ep1Row(
                fold=fold,
                case=case.name,
                support="+".join(scan.name for scan in support.scans),
                structure=structure.name,
                value=structure.value,
                ep1=dice(predicted[:, index].numpy(), masks[:, index].numpy()),
                mask_copy=dice(copied[:, index].numpy(), masks[:, index].numpy()),
                whole_volume=whole,
            )
        )
    return Ep1Score(rows, predicted, masks)


def true_sections(slices: Sequence[Sequence[int]], depth: int) -> torch.Tensor:
    """Section of each query slice by the true extent, (D, N); -1 outside it (not scored).

    Args:
        slices: per structure the query slices that contain it, ascending.
        depth: number of query slices D.
    """
    chosen = torch.full((depth, len(slices)), -1, dtype=torch.long)
    for structure, own in enumerate(slices):
        for index in range(own[0], own[-1] + 1) if own else ():
            chosen[index, structure] = section_of_slice(index, own[0], own[-1])
    return chosen


def _binary_masks(
    network: nn.Module,
    slabs: Sequence[Slab],
    pack: SupportPack,
    chosen: torch.Tensor,
    amp: bool,
) -> torch.Tensor:
    """Masks (D, N, H, W): each structure against its own background, so that they may overlap."""
    weights = section_weights(chosen, pack.sections)
    logits = (segment_slab(network, slab, pack.state, weights, amp=amp) for slab in slabs)
    return torch.cat([(slab_logits[:, 1:] > 0).cpu() for slab_logits in logits])
