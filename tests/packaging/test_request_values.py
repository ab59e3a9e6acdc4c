"""What a MONAI Label server writes into a training's config is never evaluated as code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = ("ssl_alpnet", "cow", "ipsnet")
CODE = "$open('{proof}', 'w')"
EPOCHS = "train#trainer#max_epochs"
CASES: list[tuple[dict[str, Any], str]] = [
    ({EPOCHS: CODE}, "max_epochs: expected a whole number"),
    ({EPOCHS: "%{root}/configs/train.json::seed"}, "none.nii.gz"),
    ({EPOCHS: "%{root}/configs/train.json::amp"}, "max_epochs: expected"),
    ({"device": CODE}, "device: expected cpu, cuda"),
    ({"load_path": "{proof}.pt", "load_dict": {}}, "model_filename: expected a file name"),
    ({EPOCHS: 1, "device": "cpu"}, "none.nii.gz"),
]


@pytest.fixture
def proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONAI_LABEL_STUDIES", str(tmp_path))
    return tmp_path / "proof"


def train(bundle: str, proof: Path, changes: dict[str, Any]) -> None:
    root = REPOSITORY / "bundles" / bundle
    changes = {
        key: value.format(proof=proof, root=root) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    if "load_path" in changes:
        changes = {"train#handlers": [{"_target_": "CheckpointLoader", **changes}]}
    # as the server calls it; scans that are not there end what is not refused
    scans = [{"image": str(proof.parent / "none.nii.gz")}]
    monai.bundle.run(
        run_id="run",
        config_file=str(root / "configs" / "train.json"),
        meta_file=str(root / "configs" / "metadata.json"),
        bundle_root=str(root),
        output_dir=str(proof.parent / "output"),
        **{"train#dataset#data": scans, "validate#dataset#data": []},
        **changes,
    )


@pytest.mark.parametrize(
    ("bundle", "changes", "words"),
    [(bundle, *CASES[0]) for bundle in BUNDLES] + [(BUNDLES[0], *case) for case in CASES[1:]],
)
def test_code_is_refused_before_it_is_evaluated(
    proof: Path, bundle: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises((RuntimeError, SystemExit)) as refused:
        train(bundle, proof, changes)
    said, cause = str(refused.value), refused.value.__cause__
    assert words in f"{said} {cause} {getattr(cause, '__cause__', '')}"
    assert not proof.exists()


def test_who_runs_a_config_may_write_what_it_holds(
    proof: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONAI_LABEL_STUDIES")
    changes = {EPOCHS: "$1 + 1", "device": "$torch.device('cpu')"}
    with pytest.raises(SystemExit) as refused:
        train("ssl_alpnet", proof, changes)
    assert "max_epochs" not in str(refused.value) and "device" not in str(refused.value)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_evaluates_no_device_of_a_request(proof: Path, bundle: str) -> None:
    parser = monai.bundle.ConfigParser()
    root = REPOSITORY / "bundles" / bundle
    parser.read_config(root / "configs" / "inference.json")
    parser["bundle_root"] = str(root)
    with pytest.raises(RuntimeError):
        serve(parser, CODE.format(proof=proof))
    for device in ("cpu", CODE.format(proof=proof)):  # what is built once is not evaluated again
        serve(parser, device)
    assert not proof.exists()


def serve(parser: monai.bundle.ConfigParser, device: str) -> None:
    """Ask for the parts of a config in the server's way: each request writes its device into it."""
    for part in ("preprocessing", "inferer", "postprocessing"):
        parser.config["device"] = device
        if parser.ref_resolver.items.get("device"):
            parser.ref_resolver.items["device"] = monai.bundle.ConfigItem(device, id="device")
        parser.get_parsed_content(part)
