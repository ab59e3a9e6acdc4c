"""What a scan itself gives reason to doubt, before anything is segmented in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from fsmis_components.data.geometry import SliceView, candidate_orders
from fsmis_components.data.intensity import intensity_warning, modality_of
from fsmis_components.data.nifti import is_identity, sample
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.support.support_pack import SupportPack

_ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class ScanCheck:
    """What is known of a scan without the network."""

    # as what its intensities were taken: "mr", "ct", or "ct, stored with an offset of 1024"
    modality: str
    warnings: tuple[str, ...]  # one sentence for each thing that is doubtful


def check_scan(view: SliceView, pack: SupportPack) -> ScanCheck:
    """Compare header and intensities of a scan with what the support needs."""
    volume = view.volume
    seen = modality_of(volume)
    modality = pack.normalisation.modality
    warnings = [intensity_warning(seen, pack.normalisation)]
    values = sample(volume.data)
    if values.min() == values.max():
        warnings = [f"The scan shows nothing: its voxels hold {values[0]:g}; check the file."]
    if modality == seen.name == "ct" and seen.offset:
        modality = f"ct, stored with an offset of {seen.offset:g}"
    warnings.append(_order_warning(view, pack))
    return ScanCheck(modality, tuple(filter(None, warnings)))


def told_order(view: SliceView, said: str) -> StorageOrder:
    """The order in which a scan was read, by the warnings that its inference gave.

    Args:
        view: the scan; its slices, rows or columns may have been read the other way round.
        said: those warnings; where they tell of no order, it was that of the view.
    """
    for slices, rows, columns in product((False, True), repeat=3):
        order = replace(view.order, backwards=(slices, rows, columns))
        if _in_words(order) in said:
            return order
    return view.order


def _order_warning(view: SliceView, pack: SupportPack) -> str:
    """What headers leave open, and how the scan was read for that."""
    volume, read = view.volume, ""
    if view.is_reordered:
        read = f"; it was read {_in_words(view.order)}, because so it looks most like the support"
    unknown = [f"support scan {each.name}" for each in pack.profiles if not each.oriented]
    if not volume.oriented or unknown:
        whose = unknown[0] if volume.oriented else "the scan"
        return (
            f"The header of {whose} says nothing of its orientation (qform and sform codes are 0), "
            f"so left and right may be swapped{read}; export it again with its orientation, or "
            "check left and right of the mask."
        )
    if read and is_identity(volume.affine):
        return (
            "The affine of the scan is an identity, as tools write it that know nothing of the "
            f"orientation{read}; export it again with its orientation, or check left and right of "
            "the mask."
        )
    if read and view.order in candidate_orders(volume, view.grid):
        return (
            f"By its header the scan lies about halfway between two orders{read}; check the mask."
        )
    if read:
        return (
            f"The scan does not look like the support as its header says that it lies{read}: the "
            "orientation in a header is wrong, here or there; check left and right of the mask."
        )
    return ""


def _in_words(order: StorageOrder) -> str:
    slices, rows, columns = (
        f"the {_ORDINALS[axis]}{' (backwards)' if back else ''}"
        for axis, back in zip(order.axes, order.backwards, strict=True)
    )
    return f"with slices along {slices}, rows along {rows}, columns along {columns} stored axis"
