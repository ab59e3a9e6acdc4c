"""The looks of all scans of a folder: from disk where they are known, encoded otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.failures import failure_sentence
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.suggest.look_store import LookStore
from fsmis_components.inferers.suggest.scan_look import LookRule, ScanLook, look_at


@dataclass(frozen=True)
class FolderLooks:
    """What is known of a folder.

    Attributes:
        cases: the scans that could be used.
        looks: one per scan.
        failures: why the others could not, by their names.
    """

    cases: list[Case]
    looks: list[ScanLook]
    failures: dict[str, str]

    def without(self, known: Sequence[ScanLook]) -> FolderLooks:
        """The folder without scans that are among the known ones, under whatever name."""
        left = [
            (case, look)
            for case, look in zip(self.cases, self.looks, strict=True)
            if not any(look.same_as(other) for other in known)
        ]
        return replace(self, cases=[case for case, _ in left], looks=[look for _, look in left])


def look_at_folder(
    network: nn.Module,
    cases: Sequence[Case],
    rule: LookRule,
    store: LookStore,
    *,
    batch_size: int = 8,
    amp: bool = False,
    progress: bool = True,
) -> FolderLooks:
    """Look at scans one by one; a scan that cannot be used is noted and the others go on.

    Each look is kept as soon as it is made, so an interrupted command goes on where it stopped.

    Args:
        network: any network of the contract.
        cases: the scans; their labels are not opened.
        rule: how they are made ready.
        store: where looks are kept.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        progress: show a bar with the time that is left.
    """
    used: list[Case] = []
    looks: list[ScanLook] = []
    failures: dict[str, str] = {}
    with tqdm(cases, desc="looking at", unit="scan", disable=not progress) as bar:
        for case in bar:
            bar.set_postfix_str(case.stem)
            try:
                look = store.get(case.image, case.name)
                if look is None:
                    volume = load_image(case.image)
                    look = look_at(network, volume, case.name, rule, batch_size=batch_size, amp=amp)
                    store.put(case.image, look)
            except Exception as error:  # whatever it is, it ends one turn and not the whole run
                failures[case.name] = failure_sentence(error, case.image, store.folder)
            else:
                used.append(case)
                looks.append(look)
    return FolderLooks(used, looks, failures)
