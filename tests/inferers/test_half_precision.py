"""bfloat16 where the processor is faster with it, and nowhere else."""

from pathlib import Path

import pytest
import torch

from fsmis_components.inferers import half_precision as module
from fsmis_components.inferers.half_precision import half_precision

PROCESSORS = {
    "flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile": True,
    # measured on an Intel: 1.5 times as long as in float32
    "flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni": False,
    # measured: half as long
    "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni": True,
    "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_vnni": False,
    "flags\t\t: fpu avx2 avx512f avx512bw avx512_vnni": False,
    "Features\t: fp asimd sve bf16 i8mm": True,
    "Features\t: fp asimd fphp": False,
}


@pytest.mark.parametrize(("flags", "native"), PROCESSORS.items())
def test_auto_follows_the_flags_of_the_processor(
    flags: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: any\n{flags}\nbugs\t\t:\n")
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    assert half_precision("auto", torch.device("cpu")) is native


def test_a_graphics_card_must_not_emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert half_precision("auto", "cuda:0") is False
