"""What strangers sent to the server to read, write and run what is not theirs: all refused."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
import requests
from own_app_session import OwnApp
from server_process import LabelServer

from environment import REPOSITORY
from phantom import draw_subject, write_subject

EVIL = "$__import__('os').system('id > {}')"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that is none of the server's, with a labelled scan."""
    folder = tmp_path_factory.mktemp("outside")
    subject = draw_subject(1, 9, (64, 56, 8))
    write_subject(subject, folder / "scan.nii.gz", folder / "label.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(own_app: OwnApp) -> LabelServer:
    return own_app.server


@pytest.fixture(scope="module")
def label(own_app: OwnApp) -> bytes:
    """Return a file that would be a label of scan_2."""
    return own_app.studies[1].label.read_bytes()


def call(server: LabelServer, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, server.url + path, timeout=60, **options)


def assert_refused(answer: requests.Response, *statuses: int) -> str:
    """Return the one short sentence of a refusal, which names no folder."""
    assert answer.status_code in (statuses or (400, 403, 404, 405, 413, 422)), answer.text[:500]
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str) and len(sentence) < 400, sentence
    assert str(REPOSITORY) not in sentence and "/tmp" not in sentence
    return sentence


def refusal(server: LabelServer, method: str, path: str, **options: Any) -> str:
    """Return the sentence of a request whose content is refused."""
    return assert_refused(call(server, method, path, **options), 422)


def tree(*folders: Path) -> dict[str, int]:
    """Return every file below the folders with its time; the server's own notes left out."""
    return {
        str(path): path.stat().st_mtime_ns
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"logs", ".lock"} & set(path.parts) and path.suffix != ".log"
    }


@pytest.fixture
def untouched(server: LabelServer, outside: Path):
    """Check that a refused request left no file anywhere, changed none and removed none."""
    folders = server.studies.parent, server.app_dir.parent, outside
    before = tree(*folders)
    yield
    assert tree(*folders) == before


@pytest.mark.parametrize(
    "name",
    ["minutes", "max_epochs", "device", "gpus", "run_id", "tracking_uri", "multi_gpu"]
    + ["train#trainer", "model_filename"],
)
@pytest.mark.parametrize("path", ["/train/ssl_alpnet?run_sync=true", "/train/?run_sync=true"])
def test_a_training_runs_no_text(
    server: LabelServer, untouched: None, outside: Path, name: str, path: str
) -> None:
    mark = outside / "ran"
    for value in (EVIL.format(mark), [EVIL.format(mark)], f" {EVIL.format(mark)}", "%a", "@b"):
        params = {name: value}
        body = params if path.startswith("/train/ssl") else {"ssl_alpnet": params}
        refusal(server, "POST", path, json=body)
    assert not mark.exists()


def test_a_training_takes_nothing_else(server: LabelServer, untouched: None) -> None:
    for params in (
        {"minutes": -1},
        {"minutes": "5"},
        {"minutes": [1, "$1"]},
        {"output_dir": "/tmp/x"},
        {"minutes": True},
        {"minutes": 1e300},
        {"max_epochs": 5},
        {"model_filename": "../../other/model.pt"},
        {"model_filename": "model.json"},
        {"device": "cpu; id"},
        {"unknown": 1},
        {"tracking": "mlflow"},
        {"tracking_uri": "http://example.org"},
        [1, 2],
    ):
        refusal(server, "POST", "/train/ssl_alpnet", json=params)
    # FastAPI reads a body without a type as JSON
    text = json.dumps({"minutes": "$1"})
    refusal(server, "POST", "/train/ssl_alpnet", data=text)


@pytest.mark.parametrize(
    "params",
    [
        {"model_filename": "/etc/passwd"},
        {"model_filename": "../../x.pt"},
        {"result_extension": "/../../../x"},
        {"result_extension": ".sh"},
        {"label_tag": "../x"},
        {"structures": "$1"},
        {"image_path": "/etc/passwd"},
        {"label": "/etc/passwd"},
        {"label_info": "x"},
        {"label_info": [1]},
        {"support_tag": ".."},
        {"support_tag": "a/b"},
        {"structures": "x" * 100_000},
        {"device": "cuda:0 --x"},
        [],
    ],
)
def test_an_inference_takes_nothing_else(
    server: LabelServer, untouched: None, params: dict[str, Any]
) -> None:
    path = "/infer/ssl_alpnet?image=scan_2&output=json"
    form = {"params": (None, json.dumps(params))}
    refusal(server, "POST", path, files=form)
    refusal(server, "POST", path, data={"params": json.dumps(params)})
    if isinstance(params, dict) and "support_tag" not in params:
        batch = "/batch/infer/ssl_alpnet?run_sync=true"
        refusal(server, "POST", batch, json=params)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000, "{", "nan", '"x"'])
def test_parameters_that_are_no_object(server: LabelServer, untouched: None, deep: str) -> None:
    for method, path in (("POST", "/train/ssl_alpnet"), ("POST", "/activelearning/few_shot")):
        headers = {"content-type": "application/json"}
        refusal(server, method, path, data=deep, headers=headers)
    form = {"params": (None, deep), "label": ("a.nii.gz", b"x")}
    refusal(server, "PUT", "/datastore/label?image=scan_2", files=form)


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "..", "a/b", "final/", ".hidden", "a\\b", "$x"])
def test_names_lead_nowhere(server: LabelServer, label: bytes, untouched: None, name: str) -> None:
    file, info = ("a.nii.gz", label), {"info": (None, "{}")}
    for method, path, extra, files in (
        ("PUT", "/datastore/label", {"image": "scan_2", "tag": name}, {"label": file}),
        ("PUT", "/datastore/label", {"image": name, "tag": "final"}, {"label": file}),
        ("PUT", "/datastore/image", {"image": name}, {"file": file}),
        ("PUT", "/datastore/", {"image": name}, {"file": file}),
        ("DELETE", "/datastore/image", {"id": name}, None),
        ("DELETE", "/datastore/", {"id": name}, None),
        ("DELETE", "/datastore/label", {"id": "scan_2", "tag": name}, None),
        ("PUT", "/datastore/label/info", {"label": "scan_2", "tag": name}, info),
        ("PUT", "/datastore/updatelabelinfo", {"label": name, "tag": "final"}, info),
        ("PUT", "/datastore/image/info", {"image": name}, info),
        ("GET", "/datastore/label", {"label": "scan_2", "tag": name}, None),
        ("GET", "/datastore/image", {"image": name}, None),
        ("POST", "/infer/ssl_alpnet", {"image": name}, None),
        ("POST", "/infer/ssl_alpnet", {"session_id": name}, None),
    ):
        assert_refused(call(server, method, path, params=extra, files=files))
    if name != "..":  # which the client itself resolves
        part = requests.utils.quote(name, safe="")
        assert_refused(call(server, "POST", f"/infer/{part}?image=scan_2"))
        assert_refused(call(server, "GET", f"/session/{part}"))


@pytest.mark.parametrize("name", ["x.sh", "x.nii.gz.sh", "a/..", "x.nii.gz/", "a.nii/x.py", ".nii"])
def test_files_have_names_of_scans(
    server: LabelServer, label: bytes, untouched: None, name: str
) -> None:
    for method, path, field in (
        ("PUT", "/datastore/label?image=scan_2&tag=final", "label"),
        ("PUT", "/datastore/image?image=scan_7", "file"),
        ("POST", "/infer/ssl_alpnet", "file"),
        ("PUT", "/session/", "files"),
    ):
        # requests takes the folders of a name away
        body = io.BytesIO()
        head = f'form-data; name="{field}"; filename="{name}"'
        body.write(b"--b\r\nContent-Disposition: " + head.encode() + b"\r\n\r\n" + label)
        body.write(b"\r\n--b--\r\n")
        headers = {"content-type": "multipart/form-data; boundary=b"}
        refusal(server, method, path, data=body.getvalue(), headers=headers)


def test_other_doors_are_closed(server: LabelServer, untouched: None) -> None:
    for method, path in (
        ("PUT", "/model/ssl_alpnet"),
        ("DELETE", "/model/ssl_alpnet"),
        ("POST", "/reload"),
        ("GET", "/proxy/dicom/x"),
        ("POST", "/infer/wsi/ssl_alpnet"),
        ("POST", "/infer/wsi_v2/ssl_alpnet"),
        ("GET", "/anything"),
        ("GET", "/datastore/dataset"),
        ("POST", "/scoring/dice"),
        ("TRACE", "/info/"),
    ):
        files = {"file": ("model.pt", b"x")} if path.startswith("/model") else None
        assert_refused(call(server, method, path, files=files), 403, 404, 405)


def test_files_of_others_are_not_served(
    server: LabelServer, untouched: None, outside: Path
) -> None:
    """One sentence, whether a file is there or not."""
    foreign = [outside / "scan.nii.gz", outside / "missing.nii.gz", "/etc/passwd", "/root"]
    for wanted in (
        [{"image": str(path)} for path in foreign],
        [{"support": [str(path)]} for path in foreign],
    ):
        forms = [{"params": (None, json.dumps(params))} for params in wanted]
        path = "/infer/ssl_alpnet?image=scan_2"
        assert len({refusal(server, "POST", path, files=form) for form in forms}) == 1


def test_pages_of_others_may_not_call(server: LabelServer) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ):
        assert_refused(call(server, "GET", "/info/", headers=headers), 403)
        assert_refused(call(server, "OPTIONS", "/train/ssl_alpnet", headers=headers), 403)
    port = server.url.rpartition(":")[2]
    for origin in (server.url, "http://localhost:3000", f"http://127.0.0.1:{port}"):
        assert call(server, "GET", "/info/", headers={"Origin": origin}).status_code == 200


def bomb(shape: tuple[int, ...], size: int) -> bytes:
    """A small file whose header states a shape and that unpacks to many bytes."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(np.eye(4), code=1)
    return gzip.compress(header.binaryblock + bytes(4 + size), 9)


def memory(server: LabelServer) -> int:
    """Return the largest memory that the server has taken, in bytes."""
    status = Path(f"/proc/{server._process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.parametrize(
    "text",
    ['{"ts": NaN}', '{"ts": 1e999}', '{"ts": "x"}', '{"ts": [1]}', '{"strategy": 5}']
    + ['{"strategy": {"few_shot": {"ts": "x"}}}', '{"params": 5}', '{"x": "\\ud800"}'],
)
def test_no_note_of_a_client_ends_later_requests(
    server: LabelServer, untouched: None, text: str
) -> None:
    """Such a note was kept, and every answer after it was status 500."""
    form = {"info": (None, text)}
    for kind in ("image", "label"):
        path = f"/datastore/{kind}/info?{kind}=scan_1&tag=final"
        refusal(server, "PUT", path, files=form)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_small_files_do_not_fill_the_memory(server: LabelServer, untouched: None) -> None:
    before = memory(server)
    small = bomb((2000, 2000, 500), 400_000_000)
    assert len(small) < 1_000_000
    for content in (small, bomb((30000, 30000, 3000), 1000)):
        files = {"label": ("a.nii.gz", content)}
        refusal(server, "PUT", "/datastore/label?image=scan_2&tag=final", files=files)
        form = {"file": ("a.nii.gz", content)}
        refusal(server, "POST", "/infer/ssl_alpnet", files=form)
        refusal(server, "PUT", "/datastore/image?image=new", files=form)
    assert memory(server) - before < 200_000_000


def test_archives_are_not_unpacked(server: LabelServer, untouched: None) -> None:
    for name in ("../x.nii.gz", "x.nii.gz"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(name, b"x")
        for other in ("a.tar", "a.nii.gz"):
            files = {"files": (other, content.getvalue())}
            refusal(server, "PUT", "/session/?uncompress=true", files=files)
        files = {"files": ("a.zip", content.getvalue())}
        refusal(server, "PUT", "/session/?uncompress=true", files=files)
