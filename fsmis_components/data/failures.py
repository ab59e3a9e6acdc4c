"""What a run over many scans says of one that failed, whatever the reason was."""

from __future__ import annotations

import traceback
from datetime import datetime
from pathlib import Path

import torch

from fsmis_components.data.errors import DataError, disk_is_full, unwritable

LOG = "errors.log"
_SHOWN = 300  # characters of a foreign message
# PyTorch raises a plain RuntimeError where the memory of the CPU is used up
_CPU_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")


def failure_sentence(error: Exception, source: Path, folder: Path) -> str:
    """The reason for a table, as one sentence; the traceback of an unforeseen one goes to a log.

    Args:
        error: what was raised, while it is being handled. A `DataError` has its own sentence.
        source: the scan.
        folder: gets `errors.log`, to which is appended.
    """
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError) and disk_is_full(error):
        return str(unwritable(f"{source}: its results", error))
    text = " ".join(str(error).split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if _out_of_memory(error):
        reason = f"too little memory ({reason}); close other programs, or take a larger machine"
    try:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            file.write(f"{now} {source}\n{traceback.format_exc()}\n")
    except OSError as full:
        return f"{source}: {reason} ({LOG} could not be written: {full.strerror or full})."
    return f"{source}: {reason}; the details are in {LOG}."


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_MEMORY)
