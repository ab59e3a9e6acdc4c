"""A support pack: the encoded support as one file that holds no image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

import fsmis_components
from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import DataError, exit_on_data_error, writing
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.safe_text import parse_json
from fsmis_components.encoding.identity import (
    digest_tensors,
    network_method,
    network_settings,
    weights_hash,
)
from fsmis_components.layers.support_state import SupportState
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.pack_content import check_content
from fsmis_components.support.scan_profile import ScanProfile
from fsmis_components.support.support_set import Structure, Wanted, choose_structures

FORMAT = 2
_METADATA_KEY = "fsmis_support_pack"
_STATE_PREFIX = "state."
_SECTIONS_KEY = "sections"
_ORIGINS_KEY = "origins"
_SCAN_PREFIX = "scan."
_PLANE_PREFIX = "plane."


class Frame(NamedTuple):
    """How scans are seen, which the first scan of a support decides for all others."""

    grids: tuple[SliceGrid, ...]  # working geometry of each plane, the first one's first
    normalisation: Normalisation


@dataclass(frozen=True)
class SupportPack:
    """What a network needs to know about the support, and nothing that shows a patient.

    Args:
        state: the network's support state, tensors (1, N, S, ...) on the CPU.
        sections: bool (N, S, 3): support slice s is section k (lower, middle, upper third) of
            structure n.
        origins: int64 (S, 2): support slice s is slice `origins[s, 1]` of scan `origins[s, 0]`.
        profiles: what is known of each support scan along z.
        structures: names, label values and colours, in the order of the network's channels.
        grid: working geometry; queries are brought to it.
        normalisation: intensity rule; queries are normalised by it.
        method: class name of the network.
        weights_hash: `weights_hash` of the network that made the state.
        settings: the network's own settings that shape the state.
        calibration: the support's test of itself; None where it was not made.
        planes: the same scans cut along other axes; none of them has planes.
        version: version of this package.
        source: the file, for messages; empty when it was just built.
    """

    state: SupportState
    sections: torch.Tensor
    origins: torch.Tensor
    profiles: tuple[ScanProfile, ...]
    structures: tuple[Structure, ...]
    grid: SliceGrid
    normalisation: Normalisation
    method: str
    weights_hash: str
    settings: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    planes: tuple[SupportPack, ...] = ()
    version: str = fsmis_components.__version__
    source: str = ""

    @property
    def frame(self) -> Frame:
        """How scans that are to join the pack are seen."""
        grids = (self.grid, *(plane.grid for plane in self.planes))
        return Frame(grids, self.normalisation)

    def save(self, path: str | Path) -> Path:
        """Write the pack as one safetensors file; an interrupted write leaves no half file."""
        path = Path(path)
        tensors = self._tensors()
        for index, plane in enumerate(self.planes):
            prefix = f"{_PLANE_PREFIX}{index}."
            tensors |= {prefix + key: tensor for key, tensor in plane._tensors().items()}
        content = {
            "format": FORMAT,
            "structures": [asdict(structure) for structure in self.structures],
            **self._cut(),
            "planes": [plane._cut() for plane in self.planes],
            "normalisation": self.normalisation.to_dict(),
            "method": self.method,
            "weights_hash": self.weights_hash,
            "settings": self.settings,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "version": self.version,
        }
        blob = save(tensors, metadata={_METADATA_KEY: json.dumps(content, sort_keys=True)})
        with writing(path, "name another file with --save_support_pack"):
            return atomic_write(path, lambda unfinished: unfinished.write_bytes(blob))

    @classmethod
    def load(cls, path: str | Path) -> SupportPack:
        """Read a pack.

        Raises:
            DataError: no such file, not a support pack, a newer format, or content that does not
                fit together.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(
                f"{path}: no such support pack; check --support_pack. {rebuild_sentence(path)}"
            )
        try:
            with safe_open(str(path), framework="pt") as file:
                content = parse_json((file.metadata() or {}).get(_METADATA_KEY, "null"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(
                f"{path}: not a readable support pack. {rebuild_sentence(path)}"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(
                f"{path}: not a support pack of format {FORMAT} (this package is version "
                f"{fsmis_components.__version__}). {rebuild_sentence(path)}"
            )
        try:
            tested = content["calibration"]
            pack = cls(
                **_cut_of(content, tensors),
                structures=tuple(Structure(**entry) for entry in content["structures"]),
                normalisation=Normalisation.from_dict(content["normalisation"]),
                method=content["method"],
                weights_hash=content["weights_hash"],
                settings=content["settings"],
                calibration=None if tested is None else Calibration.from_dict(tested),
                version=content["version"],
                source=str(path),
            )
            planes = []
            for index, cut in enumerate(content.get("planes", ())):  # version 0.1 has none
                prefix = f"{_PLANE_PREFIX}{index}."
                fields = {
                    key.removeprefix(prefix): tensor
                    for key, tensor in tensors.items()
                    if key.startswith(prefix)
                }
                planes.append(replace(pack, **_cut_of(cut, fields), calibration=None))
            pack = replace(pack, planes=tuple(planes))
            check_content(pack)
        except KeyError as error:
            raise DataError(
                f"{path}: the support pack has no {error}. {rebuild_sentence(path)}"
            ) from error
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(
                f"{path}: the support pack cannot be used: {error}. {rebuild_sentence(path)}"
            ) from error
        return pack

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of this plane by the names that they have in a file."""
        tensors = {_STATE_PREFIX + key: value.contiguous() for key, value in self.state.items()}
        tensors[_SECTIONS_KEY] = self.sections.contiguous()
        tensors[_ORIGINS_KEY] = self.origins.contiguous()
        for index, profile in enumerate(self.profiles):
            for key, value in profile.tensors().items():
                tensors[f"{_SCAN_PREFIX}{index}.{key}"] = value.contiguous()
        return tensors

    def _cut(self) -> dict[str, Any]:
        """What else differs between planes, as plain values."""
        scans = [profile.facts() for profile in self.profiles]
        return {"scans": scans, "grid": self.grid.to_dict()}

    def check_fits(self, network: nn.Module, known_hash: str | None = None) -> None:
        """Refuse a pack that another network, other weights or other settings made.

        Args:
            network: the network that is to use the pack.
            known_hash: its `weights_hash` where that is at hand.

        Raises:
            DataError: one sentence that names the command which rebuilds the pack.
        """
        name = self.source or "this support pack"
        method = network_method(network)
        if method != self.method:
            reason = f"it was made by {self.method} and the network here is {method}"
        elif (known_hash or weights_hash(network)) != self.weights_hash:
            reason = "it was made by other weights than those of the network here"
        elif network_settings(network) != self.settings:
            here = network_settings(network)
            changed = sorted(
                key for key in {*here, *self.settings} if here.get(key) != self.settings.get(key)
            )
            reason = "it was made with other network settings (" + ", ".join(changed) + ")"
        else:
            return
        raise DataError(
            f"{name}: the support pack does not fit: {reason}. {rebuild_sentence(self.source)}"
        )

    def selected(self, wanted: Wanted) -> SupportPack:
        """The pack for some of its structures, see `choose_structures`; None: for all."""
        if wanted is None:
            return self
        values = [structure.value for structure in self.structures]
        names = {structure.value: structure.name for structure in self.structures}
        chosen = choose_structures(wanted, values, names, self.source or "the support pack")
        index = torch.tensor([values.index(structure.value) for structure in chosen])
        colours = [self.structures[i].colour for i in index.tolist()]
        return replace(
            self,
            # axis 1 is N, or 1 where all structures share a tensor
            state={
                key: value if value.shape[1] == 1 else value.index_select(1, index)
                for key, value in self.state.items()
            },
            sections=self.sections[index],
            profiles=tuple(profile.selected(index) for profile in self.profiles),
            calibration=self.calibration and self.calibration.selected(index.tolist()),
            planes=tuple(plane.selected(wanted) for plane in self.planes),
            structures=tuple(
                replace(structure, colour=colour)
                for structure, colour in zip(chosen, colours, strict=True)
            ),
        )

    def numbered(self) -> SupportPack:
        """The pack with the label values 1..N in the order of its structures."""
        numbered = enumerate(self.structures, start=1)
        return replace(
            self,
            structures=tuple(replace(each, value=place) for place, each in numbered),
            planes=tuple(plane.numbered() for plane in self.planes),
        )

    def renamed(self, source: str) -> SupportPack:
        """The same pack under another name for messages."""
        return replace(self, source=source)


@exit_on_data_error
def stored_state(path: str | Path | None) -> SupportState | None:
    """The state of a stored pack, for a network that is to be exported with it.

    Returns:
        The state, or None where there is no such file: a network without a stored support.

    Raises:
        SystemExit: the file is no support pack.
    """
    return SupportPack.load(path).state if path and Path(path).is_file() else None


def _cut_of(cut: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What `SupportPack._cut` and `SupportPack._tensors` hold, as arguments of a pack."""
    profiles = []
    for index, facts in enumerate(cut["scans"]):
        fields: dict[str, Any] = {}
        for name in (*ScanProfile.TENSORS, *ScanProfile.OPTIONAL):
            key = f"{_SCAN_PREFIX}{index}.{name}"
            if name in ScanProfile.TENSORS or key in tensors:
                fields[name] = tensors[key]
        profiles.append(ScanProfile(**facts, **fields))
    return {
        "state": {
            key.removeprefix(_STATE_PREFIX): tensor
            for key, tensor in tensors.items()
            if key.startswith(_STATE_PREFIX)
        },
        "sections": tensors[_SECTIONS_KEY],
        "origins": tensors[_ORIGINS_KEY],
        "profiles": tuple(profiles),
        "grid": SliceGrid.from_dict(cut["grid"]),
    }


def content_hash(pack: SupportPack) -> str:
    """SHA-256 over everything in a pack that a segmentation depends on."""
    digest = hashlib.sha256(
        json.dumps(
            {
                "structures": [asdict(structure) for structure in pack.structures],
                "grid": pack.grid.to_dict(),
                "normalisation": pack.normalisation.to_dict(),
                "method": pack.method,
                "weights_hash": pack.weights_hash,
                "settings": pack.settings,
                "scans": [profile.slice_spacing for profile in pack.profiles],
            },
            sort_keys=True,
        ).encode()
    )
    digest_tensors(digest, {**pack.state, _SECTIONS_KEY: pack.sections, _ORIGINS_KEY: pack.origins})
    for profile in pack.profiles:  # without what only warns
        tensors = profile.tensors()
        tensors.pop("mirrored", None)
        digest_tensors(digest, tensors)
    for plane in pack.planes:
        digest.update(content_hash(plane).encode())
    return digest.hexdigest()


def rebuild_sentence(path: str | Path) -> str:
    """How to make a pack anew, for the end of a message; `path` is its file, or ""."""
    target = f" --save_support_pack {path}" if str(path) else ""
    return f"Rebuild it with --support_dir FOLDER_OF_LABELLED_SCANS{target}."
