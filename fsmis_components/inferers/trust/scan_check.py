"""What a scan itself gives reason to doubt, before anything is segmented in it."""

from __future__ import annotations

from dataclasses import dataclass

from fsmis_components.data.intensity import intensity_warning
from fsmis_components.data.modality import modality_of
from fsmis_components.data.stored_array import sample
from fsmis_components.data.volumes import Volume
from fsmis_components.support.support_pack import SupportPack


@dataclass(frozen=True)
class ScanCheck:
    """What is known of a scan without the network.

    Attributes:
        modality: as what its intensities were taken: "mr", "ct", or "ct, stored with an offset of
            1024".
        warnings: one sentence for each thing that is doubtful.
    """

    modality: str
    warnings: tuple[str, ...]


def check_scan(volume: Volume, pack: SupportPack) -> ScanCheck:
    """Compare header and intensities of a scan with what the support needs.

    Args:
        volume: the scan.
        pack: the support.
    """
    seen = modality_of(volume)
    modality = pack.normalisation.modality
    warnings = [intensity_warning(seen, pack.normalisation)]
    values = sample(volume.data)
    if values.min() == values.max():
        warnings = [f"The scan shows nothing: its voxels hold {values[0]:g}; check the file."]
    if modality == seen.name == "ct" and seen.offset:
        modality = f"ct, stored with an offset of {seen.offset:g}"
    unknown = [profile.name for profile in pack.profiles if not profile.oriented]
    if not volume.oriented:
        warnings.append(_unknown_orientation("the scan"))
    elif unknown:
        warnings.append(_unknown_orientation(f"support scan {unknown[0]}"))
    return ScanCheck(modality, tuple(filter(None, warnings)))


def _unknown_orientation(whose: str) -> str:
    return (
        f"The header of {whose} says nothing of its orientation (qform and sform codes are 0), so "
        "left and right may be swapped; export it again with its orientation, or check left and "
        "right of the mask."
    )
