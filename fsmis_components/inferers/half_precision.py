"""Whether to compute in bfloat16: only where the processor computes with it, not where it copies.

Without instructions for bfloat16 a processor converts each number there and back, and a training
step takes several times as long as in float32. PyTorch calls bfloat16 supported there, too. Intel's
are faster with the matrix unit only: with the vector instructions alone (`avx512_bf16`) the encoder
took 1.5 times as long, forward and backward; AMD's took half as long with these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

from fsmis_components.data.errors import DataError, exit_on_data_error

logger = logging.getLogger(__name__)
_CPUINFO = Path("/proc/cpuinfo")
_FASTER = ({"amx_bf16"}, {"AuthenticAMD", "avx512_bf16"}, {"bf16"})  # the last one is Arm's


@exit_on_data_error
def half_precision(amp: bool | str, device: torch.device | str) -> bool:
    """Whether to use bfloat16 autocast on a device, for configs.

    `amp` is "auto", whose decision is logged, or True or False, also as text; anything else ends
    the command.
    """
    wanted = str(amp).lower()
    if wanted in ("true", "1", "false", "0"):
        return wanted in ("true", "1")
    if wanted != "auto":
        raise DataError(f"--amp: expected auto, True or False, got {amp!r}; write one of them.")
    kind = torch.device(device).type
    if kind == "cuda":
        use = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        use = kind == "cpu" and native_bfloat16()
    has = "has" if use else "has no"
    logger.info("computing in %s: %s %s fast bfloat16", "bfloat16" if use else "float32", kind, has)
    return use


def native_bfloat16() -> bool:
    """Whether this machine's processor computes faster in bfloat16 than in float32."""
    if not _CPUINFO.exists():  # a system that lists no flags
        return False
    words = set(_CPUINFO.read_text(encoding="utf-8", errors="replace").split())
    return any(words >= needed for needed in _FASTER)


class AutocastInferer(SimpleInferer):
    """Call the network under bfloat16 autocast on whatever device its input is.

    MONAI's engines cast on CUDA only; bfloat16 halves the time of a training step on processors
    that compute with it, and needs no gradient scaling.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return ``network(inputs, *args, **kwargs)``."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return super().__call__(inputs, network, *args, **kwargs)
