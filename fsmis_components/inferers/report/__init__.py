"""The report of a folder run, `report.html`, and what it shares with the benchmark's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.inferers.report.folder_page import render_folder_page
from fsmis_components.inferers.run_record import CaseRow
from fsmis_components.support.support_pack import SupportPack

__all__ = ["write_folder_report"]

_SHOWN_OF_HASH = 12  # characters


def write_folder_report(
    folder: Path,
    rows: Sequence[CaseRow],
    pack: SupportPack,
    settings: Mapping[str, Any],
    unused: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write `report.html` into the folder of a run, whole or not at all.

    Args:
        folder: holds the masks and `overlays/`, to which the page refers.
        rows: one per scan, also of earlier runs that this one took up.
        pack: the support.
        settings: of the run as `RunRecord` keeps them: hash of the support, settings of the
            inferer, version of this package.
        unused: what in the folder of scans was not used, and why.

    Returns:
        The file.
    """
    facts = {
        "method": pack.method,
        "support": pack.source or "a support pack in memory",
        "labelled slices": {
            structure.name: int(number)
            for structure, number in zip(
                pack.structures, pack.sections.any(-1).sum(-1).tolist(), strict=True
            )
        },
        "SHA-256 of the weights, beginning": pack.weights_hash[:_SHOWN_OF_HASH],
        "SHA-256 of the support, beginning": str(settings["support"])[:_SHOWN_OF_HASH],
        "network": pack.settings,
        "slices": pack.grid.to_dict(),
        "intensities taken as": pack.normalisation.describe(),
        "intensities": pack.normalisation.to_dict(),
        "inference": settings["inferer"],
        "version of fsmis_components": settings["version"],
        "written": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    page = render_folder_page(rows, pack.structures, facts, folder, pack.calibration, unused)
    return atomic_write_text(folder / "report.html", page)
