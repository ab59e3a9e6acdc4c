"""Which public functions of volume inference are which stage, and the hooks that time them.

The code that is measured is the code that users run: while the hooks are in place, each function
below is called through the clock, and afterwards it is as before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.evaluation.inference_benchmark.stage_clock import REST, StageClock
from fsmis_components.inferers import folder_evaluator, slab_store, volume_inferer
from fsmis_components.inferers.case_files import CaseFiles
from fsmis_components.inferers.expected_shapes import ExpectedShapes
from fsmis_components.inferers.slab_store import SlabStore
from fsmis_components.support import encode, support_set
from fsmis_components.support.source import SupportSource

READ_SUPPORT = "read support"
SUPPORT = "encode support"
READ = "read"
PREPARE = "prepare slices"
ENCODE = "encode query"
KEEP = "keep slabs"
MATCH = "match along z"
SEGMENT = "segment"
SHAPES = "expected shapes"
BACK = "resample back"
CLEAN_UP = "clean up"
WRITE = "write"
# in the order in which tables show them
STAGES = {
    READ_SUPPORT: "open and check the support's scans and labels",
    SUPPORT: "make the support pack; later, check that network and pack are the same",
    READ: "open and check the scan",
    PREPARE: "fit the normalisation, cut slices and resample them",
    ENCODE: "the network's `encode`",
    KEEP: "features and margins, what exceeds a fixed amount to disk and back",
    MATCH: "where each slice lies in the support",
    SEGMENT: "the network's `segment`, all structures",
    SHAPES: "where the support lets a structure be expected",
    BACK: "logits on the scan's own grid",
    CLEAN_UP: "parts and holes in 3D",
    WRITE: "masks and overlay picture",
    REST: "all else: normalise, arg max, table, report",
}


@dataclass(frozen=True)
class Hook:
    """A function that is a stage.

    Attributes:
        stage: its stage.
        owner: the class, or the module that calls it by this name.
        name: of the function there.
        within: see `StageClock.stage`.
    """

    stage: str
    owner: Any
    name: str
    within: str = REST


HOOKS = (
    Hook(READ_SUPPORT, support_set, "load_image", SUPPORT),
    Hook(READ_SUPPORT, support_set, "load_label", SUPPORT),
    Hook(SUPPORT, SupportSource, "resolve"),
    Hook(READ, folder_evaluator, "load_image"),
    Hook(PREPARE, encode, "fit_normaliser"),
    Hook(PREPARE, SliceView, "slices"),
    Hook(KEEP, SlabStore, "add"),
    Hook(KEEP, slab_store, "read_slab"),
    Hook(MATCH, volume_inferer, "slice_descriptors"),
    Hook(MATCH, volume_inferer, "match_volume"),
    Hook(SHAPES, ExpectedShapes, "of"),
    Hook(CLEAN_UP, volume_inferer, "cleaned"),
    Hook(BACK, SliceView, "to_native_logits"),
    Hook(WRITE, CaseFiles, "write"),
)


@contextmanager
def hooked(clock: StageClock, network: nn.Module) -> Iterator[None]:
    """Time the stages while the body runs.

    Args:
        clock: receives them.
        network: a network of the contract.
    """
    own = (Hook(ENCODE, network, "encode"), Hook(SEGMENT, network, "segment"))
    with ExitStack() as stack:
        for hook in (*HOOKS, *own):
            stack.enter_context(_replaced(hook, clock))
        yield


@contextmanager
def _replaced(hook: Hook, clock: StageClock) -> Iterator[None]:
    function = getattr(hook.owner, hook.name)
    own = hook.name in vars(hook.owner)  # a network's methods belong to its class
    setattr(hook.owner, hook.name, _timed(function, hook, clock))
    try:
        yield
    finally:
        if own:
            setattr(hook.owner, hook.name, function)
        else:
            delattr(hook.owner, hook.name)


def _timed(function: Callable[..., Any], hook: Hook, clock: StageClock) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        with clock.stage(hook.stage, hook.within):
            return function(*arguments, **options)

    return timed
