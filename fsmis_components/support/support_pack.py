"""A support pack: the encoded support as one file that holds no image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

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
# what reading a file raises that is none, or a damaged one
_BROKEN = (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError, AttributeError)


class Frame(NamedTuple):
    """How scans are seen, which the first scan of a support decides for all others."""

    grids: tuple[SliceGrid, ...]  # working geometry of each plane, the first one's first
    normalisation: Normalisation


@dataclass(frozen=True)
class SupportPack:
    """What a network needs to know about the support, and nothing that shows a patient."""

    state: SupportState  # of the network, tensors (1, N, S, ...) on the CPU
    # bool (N, S, 3): support slice s is section k (lower, middle, upper third) of structure n
    sections: Tensor
    # int64 (S, 2): support slice s is slice `origins[s, 1]` of scan `origins[s, 0]`
    origins: Tensor
    profiles: tuple[ScanProfile, ...]  # what is known of each support scan along z
    structures: tuple[Structure, ...]  # in the order of the network's channels
    grid: SliceGrid  # working geometry; queries are brought to it
    normalisation: Normalisation  # intensity rule; queries are normalised by it
    method: str  # class name of the network
    weights_hash: str  # `weights_hash` of the network that made the state
    settings: dict[str, Any] = field(default_factory=dict)  # of the network, that shape the state
    calibration: Calibration | None = None  # the support's test of itself; None: not made
    planes: tuple[SupportPack, ...] = ()  # the same scans cut along other axes, without planes
    version: str = fsmis_components.__version__  # of this package
    source: str = ""  # the file, for messages; empty when it was just built

    @property
    def frame(self) -> Frame:
        """How scans that are to join the pack are seen."""
        grids = (self.grid, *(plane.grid for plane in self.planes))
        return Frame(grids, self.normalisation)

    def save(self, path: str | Path) -> Path:
        """Write the pack as one safetensors file; an interrupted write leaves no half file."""
        path = Path(path)
        content = {
            "format": FORMAT,
            "structures": [asdict(structure) for structure in self.structures],
            **self._cut(),
            "planes": [plane._cut() for plane in self.planes],
            "normalisation": self.normalisation.to_dict(),
            "method": self.method,
            "weights_hash": self.weights_hash,
            "settings": self.settings,
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "version": self.version,
        }
        metadata = {_METADATA_KEY: json.dumps(content, sort_keys=True)}
        blob = save(self._tensors(), metadata=metadata)
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
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                version = fsmis_components.__version__
                raise ValueError(f"it is none of format {FORMAT}, that of version {version}")
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
            planes = tuple(
                replace(pack, **_cut_of(cut, tensors, f"plane.{index}."), calibration=None)
                for index, cut in enumerate(content.get("planes", ()))  # version 0.1 has none
            )
            pack = replace(pack, planes=planes)
            check_content(pack)
            return pack
        except _BROKEN as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise DataError(
                f"{path}: not a usable support pack: {reason}. {rebuild_sentence(path)}"
            ) from error

    def _tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors of all planes by the names that they have in a file."""
        tensors = {f"state.{key}": value for key, value in self.state.items()}
        tensors |= {"sections": self.sections, "origins": self.origins}
        for index, profile in enumerate(self.profiles):
            tensors |= {f"scan.{index}.{key}": value for key, value in profile.tensors().items()}
        named = {prefix + key: value.contiguous() for key, value in tensors.items()}
        for index, plane in enumerate(self.planes):
            named |= plane._tensors(f"plane.{index}.")
        return named

    def _cut(self) -> dict[str, Any]:
        """What else differs between planes, as plain values."""
        scans = [profile.facts() for profile in self.profiles]
        return {"scans": scans, "grid": self.grid.to_dict()}

    def check_fits(self, network: nn.Module, known_hash: str | None = None) -> None:
        """Refuse a pack that another network, other weights or other settings made.

        `known_hash` is the network's `weights_hash` where that is at hand. A `DataError` names the
        command which rebuilds the pack.
        """
        method, here = network_method(network), network_settings(network)
        if method != self.method:
            reason = f"it was made by {self.method} and the network here is {method}"
        elif (known_hash or weights_hash(network)) != self.weights_hash:
            reason = "it was made by other weights than those of the network here"
        elif here != self.settings:
            names = sorted({*here, *self.settings})
            changed = [name for name in names if here.get(name) != self.settings.get(name)]
            reason = f"it was made with other network settings ({', '.join(changed)})"
        else:
            return
        raise self.unfit(reason)

    def unfit(self, reason: str) -> DataError:
        """The error about a pack that does not fit its network."""
        return DataError(
            f"{self.source or 'this support pack'}: the support pack does not fit: {reason}. "
            f"{rebuild_sentence(self.source)}"
        )

    def selected(self, wanted: Wanted) -> SupportPack:
        """The pack for some of its structures, see `choose_structures`; None: for all."""
        if wanted is None:
            return self
        values = [structure.value for structure in self.structures]
        names = {structure.value: structure.name for structure in self.structures}
        chosen = choose_structures(wanted, values, names, self.source or "the support pack")
        colours = {structure.value: structure.colour for structure in self.structures}
        index = torch.tensor([values.index(structure.value) for structure in chosen])
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
            structures=tuple(replace(each, colour=colours[each.value]) for each in chosen),
        )

    def numbered(self) -> SupportPack:
        """The pack with the label values 1..N in the order of its structures."""
        numbered = enumerate(self.structures, start=1)
        return replace(
            self,
            structures=tuple(replace(each, value=place) for place, each in numbered),
            planes=tuple(plane.numbered() for plane in self.planes),
        )


@exit_on_data_error
def stored_state(path: str | Path | None) -> SupportState | None:
    """The state of a stored pack, for a network that is to be exported with it.

    None where there is no such file; one that is no support pack ends the command.
    """
    return SupportPack.load(path).state if path and Path(path).is_file() else None


def _cut_of(
    cut: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Any]:
    """What `SupportPack._cut` and `SupportPack._tensors` hold, as arguments of a pack."""

    def kept(group: str) -> dict[str, Any]:
        start = prefix + group
        return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

    return {
        "state": kept("state."),
        "sections": tensors[f"{prefix}sections"],
        "origins": tensors[f"{prefix}origins"],
        "profiles": tuple(
            ScanProfile(**facts, **kept(f"scan.{index}."))
            for index, facts in enumerate(cut["scans"])
        ),
        "grid": SliceGrid.from_dict(cut["grid"]),
    }


def content_hash(pack: SupportPack) -> str:
    """SHA-256 over everything in a pack that a segmentation depends on."""
    facts = {
        "structures": [asdict(structure) for structure in pack.structures],
        "grid": pack.grid.to_dict(),
        "normalisation": pack.normalisation.to_dict(),
        "method": pack.method,
        "weights_hash": pack.weights_hash,
        "settings": pack.settings,
        "scans": [profile.slice_spacing for profile in pack.profiles],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest_tensors(digest, {**pack.state, "sections": pack.sections, "origins": pack.origins})
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


def join_packs(packs: Sequence[SupportPack]) -> SupportPack:
    """One pack of the scans of several, of one network, structures, grid and normalisation.

    No scan has to be encoded again, so a corrected mask joins a support in the time that its own
    scan takes. Planes are joined too; one in which a structure is nowhere labelled is left out. The
    joined pack is not tested. Packs that do not belong together are a ValueError.
    """
    first = packs[0]
    for other in packs[1:]:
        for name in ("structures", "grid", "normalisation", "method", "weights_hash", "settings"):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(f"join_packs: expected packs of the same {name}")
    origins, scans = [], 0
    planes: dict[SliceGrid, list[SupportPack]] = {}
    for pack in packs:
        origins.append(pack.origins + torch.tensor([scans, 0]))
        scans += len(pack.profiles)
        for plane in pack.planes:
            planes.setdefault(plane.grid, []).append(plane)
    joined = [join_packs(of_plane) for of_plane in planes.values()]
    return replace(
        first,
        state=join_states([pack.state for pack in packs]),
        sections=torch.cat([pack.sections for pack in packs], dim=1),
        origins=torch.cat(origins),
        profiles=tuple(profile for pack in packs for profile in pack.profiles),
        calibration=None,  # it tested another support
        planes=tuple(plane for plane in joined if plane.sections.flatten(1).any(1).all()),
    )


def join_states(states: Sequence[SupportState]) -> SupportState:
    """Join states of one network, tensors (1, N or 1, S, ...), along the support slices.

    What a slice has many of, such as the cells of a grid, may differ in number between scans of
    unlike size; the missing ones are filled with zeros, whose flags say that they are not valid.
    """
    joined = {}
    for name in states[0]:
        parts = [state[name] for state in states]
        largest = [max(lengths) for lengths in zip(*(p.shape[3:] for p in parts), strict=True)]
        filled = []
        for part in parts:
            missing = [most - length for most, length in zip(largest, part.shape[3:], strict=True)]
            # F.pad counts axes from the last
            padding = [amount for length in reversed(missing) for amount in (0, length)]
            filled.append(F.pad(part, padding) if any(missing) else part)
        joined[name] = torch.cat(filled, dim=2)
    return joined
