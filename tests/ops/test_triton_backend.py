import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from similarity_samples import C, N, P

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import triton_backend
from fsmis_components.ops.similarity.triton_backend import tile_of

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
# memory that one program may share, by compute capability, bytes
SHARED_MEMORY = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
# sizes of 1 are compiled into a kernel
ONES = dict.fromkeys(("N", "L", "P"), 1)
KERNELS = ("reduce_scores", "query_gradient", "prototype_gradient")


@needs_triton
@pytest.mark.slow
def test_kernels(device):
    """In a process of its own: others must not import Triton as an interpreter."""
    mode = {"TRITON_INTERPRET": "1"} if device.type == "cpu" else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, f"--device={device}", str(HERE / "triton_interpreted.py")],
        cwd=HERE.parents[1],
        env={**os.environ, **mode},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.parametrize(
    ("backend", "reasons"),
    [
        ("triton", "Triton is not installed; the tensors are on cpu, not on a CUDA device"),
        ("streamed", "each structure has several prototypes of its own; scale 50 is above 40"),
    ],
)
def test_reasons(backend, reasons, monkeypatch):
    monkeypatch.setattr(triton_backend, "_INSTALLED", False)
    message = rf"cannot run query \(2, 19, 8\) torch.float32 on cpu, .*: {reasons}"
    tensors = torch.rand(2, C, 8), torch.rand(1, N, P, C)
    with pytest.raises(NotImplementedError, match=message):
        prototype_similarity(*tensors, scale=50.0, backend=backend)


def compile_cases():
    """Yield every kernel for either kind of operands, its channels in several blocks and in one."""
    for kernel in KERNELS:
        for dtype in (torch.bfloat16, torch.float32):
            yield kernel, dtype, 90, {"C": 320}
        yield kernel, torch.bfloat16, 80, {"C": 320}
        yield kernel, torch.float32, 89, {"C": C, **ONES}


def compiled(kernel, tile, dtype, capability, constants):
    """Compile a kernel as a launch with contiguous operands would, without a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget

    precision = "ieee" if dtype == torch.float32 else "tf32"
    constants = {"PRECISION": precision, **tile, **constants}
    names = kernel.arg_names
    constants = {name: constants[name] for name in names if name in constants}
    operand = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    numbers = ("query_lengths", "lengths", "grad", "reduced", "kept", "result")
    types = {
        **dict.fromkeys(("query", "prototypes"), operand),
        **dict.fromkeys(numbers, "*fp32"),
        **{"scale": "fp32", "eps": "fp32"},
        **dict.fromkeys(constants, "constexpr"),
    }
    source = triton.compiler.ASTSource(
        kernel,
        {name: types.get(name, "i32") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {
            (number,): [["tt.divisibility", 16]]
            for number, name in enumerate(names)
            if types.get(name) not in ("constexpr", "fp32")
        },
    )
    options = {name: tile[name] for name in ("num_warps", "num_stages")}
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={**options, "enable_fp_fusion": True},
    )


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("case", list(compile_cases()), ids=lambda case: case[0])
def test_compiles(case, tmp_path, monkeypatch):
    from fsmis_components.ops.similarity import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    name, dtype, capability, constants = case
    tile = tile_of(dtype, None if name == "reduce_scores" else constants["C"])
    result = compiled(getattr(triton_kernels, name), tile, dtype, capability, constants)
    assert result.asm["cubin"]
    assert result.metadata.shared <= SHARED_MEMORY[capability]
    if dtype == torch.bfloat16:
        assert "mma" in result.asm["ptx"]  # tensor cores
    else:
        assert "tf32" not in result.asm["ptx"]  # only when asked
