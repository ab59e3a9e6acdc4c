"""Each bundle in the stock app, all in one server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import NAMES, Study, write_studies
from server_process import STOCK, LabelServer
from slicer import Slicer

from environment import REPOSITORY

MODELS = sorted(
    path.parents[1].name for path in REPOSITORY.glob("bundles/*/configs/inference.json")
)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    return write_studies(tmp_path_factory.mktemp("three_bundles"), ("LPS", "RAS"))


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LabelServer], studies: list[Study]) -> LabelServer:
    server = start_server(STOCK, studies[0].image.parent, MODELS)
    Slicer(server, MODELS[0]).submit(studies[0].id, studies[0].label, NAMES)
    return server


def test_info_has_every_bundle(server: LabelServer):
    info = server.client.info()
    assert sorted(info["models"]) == sorted(info["trainers"]) == MODELS
    for model in MODELS:
        assert list(info["models"][model]["labels"].values()) == [1, 2, 3, 4]


@pytest.mark.parametrize("model", MODELS)
def test_one_labelled_volume_answers(server: LabelServer, studies: list[Study], model: str):
    query = studies[1]
    answer = Slicer(server, model).run(query.id)
    assert answer.params["support"]["source"] == "datastore"
    assert answer.params["support"]["scans"] == [studies[0].id]
    assert answer.values <= set(NAMES)
    assert np.mean(list(answer.dice(query.truth).values())) > 0.4
    np.testing.assert_allclose(answer.affine, query.affine, atol=1e-4)
