"""The smallest bundle that passes every check, for the tests of the checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bundle_checks import Bundle

NETWORK = {
    "_target_": "torch.nn.Conv2d",
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": 3,
    "padding": 1,
}
ENGINE = {"device": "@device", "network": "@network_def"}


def _loader(dataset: str) -> dict[str, Any]:
    return {"_target_": "DataLoader", "dataset": dataset, "num_workers": 0}


def toy_configs() -> dict[str, dict[str, Any]]:
    """Return the smallest bundle that passes every check."""
    top = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "data",
        "device": "$torch.device('cpu')",
        "network_def": NETWORK,
    }
    dataset = {"_target_": "Dataset", "data": "$glob.glob(@dataset_dir + '/*.nii.gz')"}
    evaluator = {"_target_": "SupervisedEvaluator", "key_val_metric": None, **ENGINE}
    train = {
        **top,
        "epochs": 3,
        "train": {
            "dataset": dataset,
            "inferer": {"_target_": "SimpleInferer"},
            "trainer": {
                "_target_": "SupervisedTrainer",
                "max_epochs": "@epochs",
                "train_data_loader": _loader("@train#dataset"),
                "optimizer": "$torch.optim.SGD(@network_def.parameters(), lr=0.1)",
                "loss_function": "$torch.nn.MSELoss()",
                **ENGINE,
            },
        },
        "run": ["$@train#trainer.run()"],
    }
    inference = {
        **top,
        "dataset": dataset,
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {**evaluator, "val_data_loader": _loader("@dataset")},
        "run": ["$@evaluator.run()"],
    }
    return {"train": train, "inference": inference}


def toy_metadata() -> dict[str, Any]:
    tensor = {
        "type": "image",
        "format": "magnitude",
        "num_channels": 1,
        "spatial_shape": ["32*n", "32*n"],
        "dtype": "float32",
        "value_range": [],
    }
    pred = {**tensor, "num_channels": 2, "channel_def": {"0": "background", "1": "liver"}}
    keys = ("monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
    return {
        **dict.fromkeys((*keys, "copyright"), "x"),
        "schema": "https://example.org/meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "first"},
        "required_packages_version": {"nibabel": "5.4.2"},
        "network_data_format": {"inputs": {"image": tensor}, "outputs": {"pred": pred}},
    }


def write_toy(root: Path) -> Path:
    """Write the bundle into a new folder."""
    for folder in ("configs", "models"):
        (root / folder).mkdir(parents=True)
    (root / "LICENSE").write_text("text\n")
    for name, content in {**toy_configs(), "metadata": toy_metadata()}.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps(content))
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def edit(root: Path, config: str, change: Callable[[dict[str, Any]], object]) -> Bundle:
    """Change a config of a bundle."""
    path = root / "configs" / f"{config}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return Bundle(root)
