"""Three outlined slices of each structure, as the annotator's page says, to the stock app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import NAMES, Study, write_studies
from server_process import STOCK, LabelServer
from slicer import Slicer

LEAST_FILLED, LEAST_OTHER = 0.85, 0.7  # mean Dice; measured: 0.96 and 0.88


def _three_slices(study: Study, folder: Path) -> Path:
    """Write a label that has each structure in three slices, spread over its length."""
    stored = nibabel.load(study.label)
    truth = np.asarray(stored.dataobj)
    axis = int(np.argmax(stored.header.get_zooms()[:3]))
    whole = np.moveaxis(truth, axis, 0)
    kept = np.zeros_like(whole)
    for value in NAMES:
        shows = np.flatnonzero((whole == value).any((1, 2)))
        for share in (1 / 6, 1 / 2, 5 / 6):
            place = shows[round(share * (len(shows) - 1))]
            kept[place][whole[place] == value] = value
    path = folder / "three_slices.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(kept, 0, axis), stored.affine), path)
    return path


def test_they_fill_their_own_scan_and_answer_for_another(
    start_server: Callable[..., LabelServer], tmp_path: Path
):
    own, other = write_studies(tmp_path)[:2]
    server = start_server(STOCK, tmp_path / "studies", ["ssl_alpnet"])
    slicer = Slicer(server, "ssl_alpnet")
    slicer.submit(own.id, _three_slices(own, tmp_path), NAMES)
    filled = slicer.run(own.id, support=[own.id])
    assert filled.params["support"]["scans"] == [own.id]
    assert np.mean(list(filled.dice(own.truth).values())) > LEAST_FILLED
    drawn = np.asarray(nibabel.load(server.studies / "labels/final" / f"{own.id}.nii.gz").dataobj)
    assert np.array_equal(filled.mask[drawn > 0], drawn[drawn > 0])
    answer = slicer.run(other.id)
    assert answer.params["support"]["scans"] == [own.id]
    assert np.mean(list(answer.dice(other.truth).values())) > LEAST_OTHER
