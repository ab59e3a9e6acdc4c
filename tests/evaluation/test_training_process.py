import sys
from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.training_process import run_training, training_command


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_the_command_is_what_a_person_would_give():
    knobs = {"fold": 3, "test_structures": [2, 3], "rate": 6e-4, "amp": None, "output_dir": "7"}
    assert training_command(Path("b"), knobs) == [
        *(sys.executable, "-m", "monai.bundle", "run", "training"),
        *("--config_file", str(Path("b/configs/train.json")), "--bundle_root", "b"),
        *("--fold", "3", "--test_structures", "[2, 3]", "--rate", "0.0006", "--amp", "None"),
        *("--output_dir", "'7'"),
    ]


def test_shows_what_is_printed_as_it_is(capfd: pytest.CaptureFixture[str]):
    run_training(python("import sys; print('out'); print('\\rbar █ é', end='', file=sys.stderr)"))
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("out\n", "\rbar █ é")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('a.nii.gz: damaged; export it again.')", r"^a.nii.gz: damaged; .*\.$"),
        ("print(1, file=__import__('sys').stderr); raise RuntimeError('x')", "^RuntimeError: x$"),
        ("raise SystemExit(3)", r"^the training failed \(3\)"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9 .*give the same command"),
    ],
)
def test_a_failure_is_its_last_line(code: str, said: str):
    with pytest.raises(DataError, match=said):
        run_training(python(code))


def test_runs_the_code_that_runs_here(tmp_path: Path, monkeypatch, capfd):
    """A package of our name in the working folder is not taken."""
    (tmp_path / "fsmis_components").mkdir()
    (tmp_path / "fsmis_components" / "__init__.py").write_text("raise SystemExit('another')")
    (tmp_path / "where.py").write_text("raise SystemExit('the working folder is on the path')")
    monkeypatch.chdir(tmp_path)
    run_training([sys.executable, "-m", "fsmis_components.data.errors"])
    with pytest.raises(DataError, match="No module named where"):
        run_training([sys.executable, "-m", "where"])


def test_an_interruption_ends_the_training(monkeypatch, tmp_path: Path):
    code = (
        "import sys, time\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
        "open(sys.argv[1], 'w')"
    )

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sys.stderr, "write", interrupt)
        run_training(python(code, str(tmp_path / "late")))
    assert not (tmp_path / "late").exists()
