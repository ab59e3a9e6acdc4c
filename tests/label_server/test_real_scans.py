"""Abdominal MRI of patients in the stock app; scans are copied, never changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import Study
from server_process import STOCK, LabelServer
from slicer import Slicer

MODEL = "ssl_alpnet"
NAMES = {1: "liver", 2: "right_kidney", 3: "left_kidney", 4: "spleen"}
LABELLED, QUERY = "image_1", "image_2"


@pytest.fixture(scope="module")
def studies(fsmis_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    folder = tmp_path_factory.mktemp("real_scans")
    studies = {}
    for id in (LABELLED, QUERY):
        study = Study(id, *(folder / part / f"{id}.nii.gz" for part in ("studies", "truth")))
        for source, target in ((id, study.image), (id.replace("image", "label"), study.label)):
            target.parent.mkdir(exist_ok=True)
            shutil.copy(fsmis_data_dir / "chaos_t2" / f"{source}.nii.gz", target)
        studies[id] = study
    return studies


@pytest.fixture(scope="module")
def slicer(start_server: Callable[..., LabelServer], studies: dict[str, Study]) -> Slicer:
    return Slicer(start_server(STOCK, studies[QUERY].image.parent, [MODEL]), MODEL)


def test_default_pack_then_a_label(slicer: Slicer, studies: dict[str, Study]):
    query, labelled = studies[QUERY], studies[LABELLED]
    shipped = slicer.run(query.id)
    slicer.submit(labelled.id, labelled.label, NAMES)
    own = slicer.run(query.id)
    assert shipped.params["support"]["source"] == "default pack"
    assert own.params["support"]["source"] == "datastore"
    assert own.params["support"]["scans"] == [labelled.id]
    for answer in (shipped, own):
        assert answer.params["structures"] == {name: value for value, name in NAMES.items()}
        assert answer.mask.shape == nibabel.load(query.image).shape
        np.testing.assert_allclose(answer.affine, query.affine, atol=1e-4)
        assert np.mean(list(answer.dice(query.truth).values())) > 0.6
