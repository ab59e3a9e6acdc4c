"""A real MONAI Label server on this machine, with copies of the bundles, for as long as a test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environment import REPOSITORY

STOCK = "monaibundle"  # the sample app that comes with MONAI Label
# what the stock app needs to start without a network: no list of the model zoo, no SAM 2
STOCK_CONF = {"zoo_source": "local", "sam2": "false"}
SHORT_TRAINING = {"episodes_per_epoch": 2, "val_episodes": 2}
SHORT_FIT = {"half_steps": 25, "final_steps": 25, "student_size": 64}
START_SECONDS = 120
REFRESH_SECONDS = 20
LOG_LINES = 60


class LabelServer:
    """``monailabel start_server`` in its own process group, on a free port of 127.0.0.1.

    Args:
        folder: empty; receives the copy of the app, the log and all temporary files.
        app: ``"monaibundle"`` for MONAI Label's own app, else the folder of an app.
        studies: the folder of scans that the server works in.
        models: names of folders in ``bundles/``; copies of them are put into the app's ``model``.
        conf: options of the app, as ``--conf name value``.
    """

    def __init__(
        self, folder: Path, app: str | Path, studies: Path, models: Sequence[str], **conf: str
    ):
        self.app_dir = folder / "app"
        self.models_dir = self.app_dir / "model"
        self.log_path = folder / "server.log"
        self.studies = studies
        self._temporary = folder / "temporary"
        self._temporary.mkdir(parents=True)
        _copy_app(app, self.app_dir)
        for name in models:
            _copy_bundle(name, self.models_dir)
        if app == STOCK:
            conf = {**STOCK_CONF, **conf}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = self._start(port, {"models": ",".join(models), **conf})
        self._wait()
        from monailabel.client import MONAILabelClient  # only its own environment has it

        received = self._temporary / "received"
        received.mkdir()
        self.client: Any = MONAILabelClient(self.url, tmpdir=str(received))

    @property
    def log(self) -> str:
        """Return all that the server has written so far."""
        return self.log_path.read_text(errors="replace")

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.splitlines()[-LOG_LINES:])

    def get(self, path: str) -> Any:
        """Return the JSON that the server answers to GET ``path``."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def remove_labels(self) -> None:
        """Take back every submitted label and wait until the server's record says so."""
        for label in (self.studies / "labels" / "final").iterdir():
            label.unlink()
        end = time.monotonic() + REFRESH_SECONDS
        while self.get("/datastore/")["completed"]:
            if time.monotonic() > end:
                raise RuntimeError(f"The server still lists labels:\n{self.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server and everything that it started, a training too."""
        for number in (signal.SIGTERM, signal.SIGKILL):  # the second for what is left of the group
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def _start(self, port: int, conf: dict[str, str]) -> subprocess.Popen:
        command = [sys.executable, "-m", "monailabel.main", "start_server"]
        command += ["--app", str(self.app_dir), "--studies", str(self.studies)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        for name, value in conf.items():
            command += ["--conf", name, value]
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self._temporary),
            "MONAI_LABEL_SESSION_PATH": str(self._temporary / "sessions"),
        }
        with self.log_path.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=self._temporary,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self) -> None:
        """Return when the server answers."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.get("/info/")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        self.stop()
        raise RuntimeError(f"The server did not start:\n{self.log_tail()}")


def _copy_app(app: str | Path, target: Path) -> None:
    """Copy what ``monailabel apps --download`` copies, or an app of ours."""
    source = Path(sys.prefix) / "monailabel" / "sample-apps" / STOCK if app == STOCK else Path(app)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("logs", "model", "__pycache__"))


def _copy_bundle(name: str, models_dir: Path) -> None:
    """Copy a bundle and shorten its trainings."""
    bundle = models_dir / name
    ignored = shutil.ignore_patterns("outputs", "eval", "__pycache__")
    shutil.copytree(REPOSITORY / "bundles" / name, bundle, ignore=ignored)
    for training, short in (("train", SHORT_TRAINING), ("fit", SHORT_FIT)):
        config = bundle / "configs" / f"{training}.json"
        knobs = json.loads(config.read_text())
        config.write_text(json.dumps({**knobs, **short}, indent=2))
