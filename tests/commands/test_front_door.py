from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsmis_components.__main__ import main
from fsmis_components.commands import front_door

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my scans", "20241128", "s", "l"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been started; each ends with 3."""
    words: list[list[str]] = []
    monkeypatch.setattr(front_door, "_status", lambda given: words.append(given) or 3)
    return words


def run(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(list(words)))
    return ended.value.code


def test_what_is_printed_is_what_runs(
    started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("segment", "my scans", "--labelled", "20241128", "--uncertainty", "True") == 3
    printed = capsys.readouterr().out.strip()
    root = REPOSITORY / "bundles" / "ssl_alpnet"
    assert printed == (
        f"python -m monai.bundle run --config_file {root}/configs/inference.json "
        f"--bundle_root {root} --support_dir ./20241128 --dataset_dir 'my scans' "
        "--output_dir masks --uncertainty True"
    )
    assert started[0][0] == sys.executable and started[0][1:4] == ["-m", "monai.bundle", "run"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "s", "--labelled", "l", "--minutes", "20"], ["fitting", "fit.json", "20"]),
        (["train", "s"], ["training", "train.json", "--initial_weights", "shipped"]),
        (["train", "s", "--initial_weights", "none"], ["--initial_weights", "none"]),
        (["download", "cow", "file:///c.zip"], ["download", "--name", "cow", "file:///c.zip"]),
        (["pack", "bundles/cow"], ["pack_bundle.py", "bundles/cow", "--output", "dist"]),
    ],
)
def test_each_command_has_one_behind_it(
    words: list[str], expected: list[str], started: list[list[str]]
) -> None:
    assert run(*words) == 3
    names = [Path(word).name if word.endswith((".json", ".py")) else word for word in started[0]]
    places = [names.index(word) for word in expected]
    assert places == sorted(places)


def test_what_came_of_new_scans_is_told_and_not_of_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(front_door, "_status", lambda given: 0)
    for folder, case in (("fitted", "old"), ("fitted/new", "late")):
        (tmp_path / folder).mkdir()
        table = f"case,status,warning\n{case},done,look\n"
        (tmp_path / folder / "cases.csv").write_text(table)
    assert run("fit", "s", "--labelled", "l", "--new_dir", "my scans") == 0
    told = capsys.readouterr().out
    assert "1 of 1 scans have a mask, doubtful late: look at fitted/new/report.html" in told
    assert run("fit", "s", "--labelled", "l") == 0
    assert "doubtful old: look at fitted/report.html" in capsys.readouterr().out


def test_mistakes_get_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert run(*words) == 1
        return capsys.readouterr().err

    assert run() == 1 and "fsmis segment SCANS" in capsys.readouterr().out
    assert "required argument: scans" in said("segment")
    given = ("segment", "s", "--labelled")
    assert said(*given, "gone") == "gone: there is no such file or folder; check the path.\n"
    misspelt = "--ouput: there is no such option; did you mean --output?\n"
    assert said(*given, "l", "--ouput", "m") == misspelt
    unknown = "unet: no bundle there; name its folder, or one of cow, ipsnet, ssl_alpnet.\n"
    assert said(*given, "l", "--method", "unet") == unknown
    (Path.cwd() / "theirs" / "configs").mkdir(parents=True)
    missing = "theirs/configs/fit.json: there is no such config; name a bundle"
    assert said("fit", "s", "--labelled", "l", "--method", "theirs").startswith(missing)
    assert said("segmnt", "s") == "segmnt: there is no such command; did you mean segment?\n"


def test_help_of_a_command_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", "--help") == 0
    said = capsys.readouterr().out
    assert "folder of scans" in said and "--method" in said
    assert run("suggest", "--help") == 0
    assert "suggest SCANS <flags>" in capsys.readouterr().out
    assert run("benchmark", "evaluate", "--help") == 0
    assert "SUBJECTS" in capsys.readouterr().out


def test_label_listens_on_this_machine_only(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front_door.shutil, "which", lambda name, path: f"/opt/{name}")
    assert run("label", "scans", "--port", "8010") == 3
    assert started[0][0] == "/opt/monailabel"
    assert started[0][-4:] == ["--host", "127.0.0.1", "--port", "8010"]
    assert started[0][3] == str(REPOSITORY / "apps" / "few_shot")
    monkeypatch.setattr(front_door.shutil, "which", lambda name, path: None)
    assert run("label", "scans") == 1
    assert "tools/label_environment.py" in capsys.readouterr().err


def test_the_exit_status_and_an_interruption_are_those_of_the_command() -> None:
    child = (
        "import time\ntry:\n print('on', flush=True)\n time.sleep(60)\n"
        "except KeyboardInterrupt:\n time.sleep(1)\n exit(7)"
    )
    code = (
        "import sys; from fsmis_components.commands.front_door import _status; "
        f"sys.exit(_status([sys.executable, '-c', {child!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        # what a shell starts in the background ignores interruptions
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)  # the parent waits by now
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 7
