from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

import draw_decisions

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "cow": ["spatial_size=64", "prototype_grid=16"],
    "ipsnet": ["spatial_size=64", "deep_width=16", "self_learning=true"],
}


def command(
    dataset: Path, output: Path, *words: str, bundle: str = "cow", knobs: list[str] | None = None
) -> list[str]:
    return [
        *("--weights", "untrained", "--bundle_root", str(BUNDLES / bundle)),
        *("--dataset_dir", str(dataset), "--case", "2", "--support", "1"),
        *("--output", str(output), "--knobs", *(knobs or SMALL[bundle]), *words),
    ]


@pytest.mark.parametrize("bundle", [name for name in SMALL if (BUNDLES / name).is_dir()])
def test_from_command_to_picture(
    bundle: str, phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pictures" / "decisions.png"
    words = ["--structure", "{large: 1, small: 2}"]
    assert draw_decisions.main(command(phantom_dataset, output, *words, bundle=bundle)) == 0
    said = capsys.readouterr().out.splitlines()
    own = r", the query's own prototypes (not )?trusted" if bundle == "ipsnet" else ""
    for line, structure in zip(said[:2], ("large", "small"), strict=True):
        assert re.fullmatch(rf"{structure}: Dice \d+\.\d %{own}", line)
    assert said[2:] == [str(output)]
    assert imread(output).shape[0] > 600  # two rows


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--case", "9"], "id 9: no case of this name"),
        (["--support", "9"], "id 9: no case of this name"),
        (["--structure", "9"], "structure structure_9 (label value 9) is in no support scan"),
        (["--structure", "{"], "--structure: { cannot be read"),
        (["--slice", "99"], "not 99; change --slice"),
        (["--slice", "0"], "--slice: expected auto or a number from 1"),
        (["--slice", "first"], "--slice: expected auto or a number from 1"),
        (["--weights", "nowhere.pt"], "--weights: nowhere.pt is no file"),
        (["--bundle_root", "nowhere"], "no bundle there"),
        (["--knobs", "spatial_size"], "--knobs: expected KNOB=VALUE"),
        (["--knobs", "nothing=1"], "no knob nothing"),
    ],
)
def test_rejects(
    words: list[str], sentence: str, phantom_dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "decisions.png"
    assert draw_decisions.main([*command(phantom_dataset, output), *words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not output.exists()


def test_another_method_is_refused(
    phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle_root", str(BUNDLES / "ssl_alpnet")]
    knobs = ["spatial_size=64"]
    assert draw_decisions.main(command(phantom_dataset, tmp_path / "p", *words, knobs=knobs)) == 1
    assert "decisions of ALPNet cannot be drawn" in capsys.readouterr().err


def test_a_real_case(fsmis_data_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "decisions.png"
    words = command(fsmis_data_dir / "chaos_t2", output, knobs=["prototype_grid=32"])
    assert draw_decisions.main([*words, "--case", "8", "--support", "5", "--structure", "4"]) == 0
    assert imread(output).shape[1] > 1600
