"""A session with our own app, which the tests share; `conftest.py` leads through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from made_up_studies import Study
from server_process import LabelServer
from slicer import Slicer

from environment import REPOSITORY

MODEL = "ssl_alpnet"
APP = REPOSITORY / "apps" / "few_shot"
NAMES = {1: "spleen", 2: "Liver", 3: "not drawn"}
# as Slicer would number them, where the annotator made the segments in another order
OTHER_NAMES = {1: "liver", 2: "Spleen"}


@dataclass(frozen=True)
class OwnApp:
    """A server of our own app and a viewer in front of it."""

    server: LabelServer
    slicer: Slicer
    studies: list[Study]  # scan_1 to scan_6, and one that is not in the server's folder
    folder: Path  # for files of the annotator

    @property
    def fits(self) -> Path:
        return self.server.studies / ".few_shot" / "fit" / MODEL

    def model(self, name: str) -> Slicer:
        return Slicer(self.server, f"{MODEL}_{name}")
