"""bfloat16 where the processor computes with it, and nowhere else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from fsmis_components.inferers import half_precision as module
from fsmis_components.inferers.half_precision import half_precision, native_bfloat16

PROCESSORS = {
    "flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni": True,
    "flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile": True,
    "flags\t\t: fpu avx2 avx512f avx512bw avx512_vnni": False,
    "flags\t\t: fpu sse2 avx2": False,
    "Features\t: fp asimd sve bf16 i8mm": True,
    "Features\t: fp asimd fphp": False,
}


@pytest.mark.parametrize(("flags", "native"), PROCESSORS.items())
def test_auto_follows_the_flags_of_the_processor(
    flags: str,
    native: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: any\n{flags}\nbugs\t\t:\n")
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    with caplog.at_level(logging.INFO):
        assert half_precision("auto", torch.device("cpu")) is native
    [record] = caplog.records
    assert ("bfloat16: " if native else "float32: ") in record.message


@pytest.mark.parametrize("native", [False, True])
def test_a_system_that_lists_no_flags(
    native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "absent")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native, raising=False)
    assert native_bfloat16() is native
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert not native_bfloat16()


@pytest.mark.parametrize("native", [False, True])
def test_a_graphics_card_is_asked_for_its_own(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert half_precision("auto", "cuda:0") is native and asked == [False]


@pytest.mark.parametrize(
    ("amp", "used"),
    [(True, True), (False, False), ("true", True), ("false", False), ("False", False), (0, False)],
)
def test_what_is_asked_for_is_done(amp: bool | str, used: bool) -> None:
    assert half_precision(amp, "cpu") is used


def test_another_word_is_refused() -> None:
    with pytest.raises(SystemExit, match="--amp: expected auto, True or False, got 'no'"):
        half_precision("no", "cpu")
