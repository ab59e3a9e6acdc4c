"""The checks that build or run a part of a bundle, on the smallest one with one fault."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import edit

import bundle_runs
from bundle_checks import verify
from bundle_files import Bundle


@pytest.mark.parametrize("key", ["version", "required_packages_version", "network_data_format"])
def test_schema_requires(toy: Path, key: str):
    assert not bundle_runs.check_schema(Bundle(toy))
    assert key in " ".join(bundle_runs.check_schema(edit(toy, "metadata", lambda c: c.pop(key))))


def test_schema_checks_tensors(toy: Path):
    def change(content: dict[str, Any]) -> None:
        content["network_data_format"]["inputs"]["image"]["num_channels"] = "one"

    assert bundle_runs.check_schema(edit(toy, "metadata", change))


def test_a_missing_package_is_one_sentence(toy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    lines: list[str] = []
    assert not verify(toy, lines.append, static=True)
    said = "the check needs the package jsonschema: install it by 'pip install jsonschema'"
    assert [line.strip() for line in lines if "jsonschema" in line] == [f"metadata schema: {said}"]


def test_unknown_schema_is_said(toy: Path):
    bundle = edit(toy, "metadata", lambda c: c.update(schema="https://example.org/other.json"))
    [said] = bundle_runs.check_schema(bundle)
    assert said.startswith("note: ") and "other.json" in said, "advice for a bundle of others"
    edit(toy, "train", lambda c: c.update(note="$fsmis_components"))
    [said] = bundle_runs.check_schema(Bundle(toy))
    assert said.startswith("metadata.json names the schema 'other.json'")


def test_network_and_export(toy: Path):
    def change(content: dict[str, Any]) -> None:
        content["network_def"]["out_channels"] = 3

    assert "output channel number" in bundle_runs.check_network(edit(toy, "inference", change))[0]
    assert bundle_runs.check_export(Bundle(toy)), "the weights do not fit any more"


def test_required_ids_are_named_without_making_anything(toy: Path):
    assert not bundle_runs.check_required_ids(Bundle(toy))
    bundle = edit(
        toy, "train", lambda c: (c.pop("device"), c["train"]["trainer"].pop("max_epochs"))
    )
    [said] = bundle_runs.check_required_ids(bundle)
    assert said.startswith("train.json has no device, train#trainer#max_epochs: ")


def test_missing_property_is_named(toy: Path):
    bundle = edit(toy, "train", lambda c: c["train"].pop("inferer"))
    assert "train_inferer" in " ".join(bundle_runs.check_training(bundle))
