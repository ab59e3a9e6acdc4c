"""Looks of scans kept on disk, so that a second command does not encode them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

import fsmis_components
from fsmis_components.data.atomic import atomic_write_bytes, remove_unfinished
from fsmis_components.data.errors import unwritable
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.json_text import parse_json
from fsmis_components.inferers.suggest.scan_look import LookRule, ScanLook
from fsmis_components.support.support_pack import network_settings, weights_hash

_METADATA_KEY = "fsmis_scan_look"


class LookStore:
    """One file per scan; it counts as long as scan, weights and rule are the same.

    Args:
        folder: receives the files; it is made.
        network: the network that looks.
        rule: how scans are made ready for it.
        amp: whether it computes in bfloat16.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: Path, network: nn.Module, rule: LookRule, amp: bool = False) -> None:
        self.folder = folder
        self._hashes: dict[Path, str] = {}  # of scans, taken before they are read
        self._circumstances = {
            "version": fsmis_components.__version__,
            "weights": weights_hash(network),
            "settings": network_settings(network),
            "rule": rule.to_dict(),
            "amp": amp,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # a look shows a patient as a small image does
        except OSError as error:
            raise unwritable(folder, error) from error

    def get(self, image: Path, name: str) -> ScanLook | None:
        """The look of a scan; None where it has to be made (anew).

        Args:
            image: file or DICOM folder of the scan.
            name: of the scan.
        """
        path = self._path(image)
        try:
            with safe_open(str(path), framework="pt") as file:
                content = parse_json((file.metadata() or {}).get(_METADATA_KEY, "null"))
                if not isinstance(content, dict) or content.get("made_of") != self._made_of(image):
                    return None
                grid = SliceGrid.from_dict(content["grid"])
                descriptors = file.get_tensor("descriptors")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: it is made anew
        return ScanLook(name, grid, float(content["slice_spacing"]), descriptors)

    def put(self, image: Path, look: ScanLook) -> None:
        """Keep the look of a scan.

        Raises:
            DataError: it cannot be written.
        """
        path = self._path(image)
        content = {
            "made_of": self._made_of(image),
            "grid": look.grid.to_dict(),
            "slice_spacing": look.slice_spacing,
        }
        tensors = {"descriptors": look.descriptors.contiguous()}
        metadata = {_METADATA_KEY: json.dumps(content)}
        remove_unfinished([path])
        try:
            atomic_write_bytes(path, save(tensors, metadata), private=True)
        except OSError as error:
            raise unwritable(path, error) from error

    def _path(self, image: Path) -> Path:
        # names may repeat between folders, paths do not
        digest = hashlib.sha256(str(image.resolve()).encode()).hexdigest()
        return self.folder / f"{digest[:16]}.safetensors"

    def _made_of(self, image: Path) -> dict[str, object]:
        # through JSON, so that it compares equal to what a file gives back
        if image not in self._hashes:
            self._hashes[image] = file_hash(image)
        own = {**self._circumstances, "scan": self._hashes[image]}
        return dict(json.loads(json.dumps(own)))
