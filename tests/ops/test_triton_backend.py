import importlib.util
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from similarity_samples import C, N, P, V

from fsmis_components.ops.similarity import triton_backend, triton_launch
from fsmis_components.ops.similarity.problem import SimilarityProblem
from fsmis_components.ops.similarity.triton_launch import (
    Parts,
    gradient_tiles,
    reduction_tiles,
    split,
)

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
# memory that one program may share, bytes
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
# sizes of 1 are compiled into a kernel
ONES = dict.fromkeys(
    (
        *("num_batch", "num_structures", "num_sets", "num_groups", "num_positions"),
        *("num_prototypes", "parts", "result_batch", "result_sets", "queries_per_result"),
    ),
    1,
)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        "test_matches_reference and softmax",
        "test_matches_reference and logsumexp",
        "test_matches_reference and max and not softmax",
        "not test_matches_reference",
    ],
)
def test_kernels(cases, device):
    """In a process of its own: others must not import Triton as an interpreter."""
    mode = {"TRITON_INTERPRET": "1"} if device.type == "cpu" else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", cases]
    result = subprocess.run(
        [*command, f"--device={device}", str(HERE / "triton_interpreted.py")],
        cwd=HERE.parents[1],
        env={**os.environ, **mode},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def problem(**changes) -> SimilarityProblem:
    fields = {
        "query": torch.rand(2, C, 8),
        "prototypes": torch.rand(1, N, P, C),
        "valid": None,
        "values": None,
        "reduction": "softmax",
        "scale": 20.0,
        "eps": 1e-4,
    }
    return SimilarityProblem(**{**fields, **changes})


def test_reasons(monkeypatch):
    monkeypatch.setattr(triton_backend, "_INSTALLED", False)
    reasons = triton_backend.unsupported_reasons(problem(reduction="none"))
    assert reasons == [
        "reduction none asks for the whole map, which leaves nothing to fuse",
        "Triton is not installed",
        "the tensors are on cpu, not on a CUDA device",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query": torch.rand(2, C, 8).double()}, "query is torch.float64, not float16, "),
        ({"prototypes": torch.rand(1, N, P, C).double()}, "prototypes is torch.float64, not "),
        ({"values": torch.rand(1, N, P, 2).double()}, "values is torch.float64, not float16"),
        ({"query": torch.rand(1, 2049, 2)}, "2049 channels, not 1 to 2048"),
        ({"values": torch.rand(1, N, P, 2049)}, "values of 2049 entries, not 1 to 2048"),
        ({"values": torch.rand(1, N, P, 0)}, "values of 0 entries, not 1 to 2048"),
    ],
)
def test_reasons_of_the_operands(changes, reason, monkeypatch):
    monkeypatch.setattr(triton_backend, "_INSTALLED", True)
    monkeypatch.setattr(triton_backend, "_INTERPRETED", True)
    assert triton_backend.unsupported_reasons(problem()) == []
    (found,) = triton_backend.unsupported_reasons(problem(**changes))
    assert found.startswith(reason)


def test_sums_are_split_where_programs_are_few(monkeypatch):
    monkeypatch.setattr(triton_launch, "_PROGRAMS_PER_PROCESSOR", 264)  # a processor on a CPU
    cpu = torch.device("cpu")
    assert split(64, 8192, cpu) == Parts(4, 2048)
    assert split(64, 8000, cpu) == Parts(4, 2048)
    assert split(64, 1100, cpu) == Parts(3, 384)  # every part is a multiple of every block
    assert split(64, 300, cpu).parts == 1  # too few terms
    assert split(1000, 8192, cpu).parts == 1  # programs enough
    assert split(0, 8192, cpu).parts * split(0, 8192, cpu).size >= 8192


def test_the_first_tile_that_fits_is_kept(monkeypatch):
    errors = pytest.importorskip("triton.runtime.errors", reason="Triton is not installed")
    monkeypatch.setattr(triton_launch, "_CHOSEN", {})
    large, small = gradient_tiles(8, 0, 8, torch.float32)
    started = []

    class Kernel:
        def __getitem__(self, grid):
            def start(**arguments):
                started.append((grid, arguments["BLOCK_L"]))
                if arguments["BLOCK_L"] == large.BLOCK_L:
                    raise errors.OutOfResources(200, 100, "shared memory")

            return start

    query = torch.rand(1)
    for _ in range(2):
        triton_launch.launch(
            Kernel(), ("k",), [large, small], lambda t: t.BLOCK_L, {"query": query}, query.device
        )
    assert started == [((64,), 64), ((32,), 32), ((32,), 32)]
    with pytest.raises(RuntimeError, match="no tile of .* fits the GPU"):
        triton_launch.launch(
            Kernel(), ("other",), [large], lambda t: 1, {"query": query}, query.device
        )


def compile_cases():
    """Yield every tile of every kernel for either kind of operands, then every other branch."""
    for dtype in (torch.bfloat16, torch.float32):
        for channels in (256, 320):  # on the chip as a whole, and in blocks
            for tile in reduction_tiles(channels, 0, dtype):
                yield "reduce_scores", tile, dtype, {"C": channels}
            for tile in gradient_tiles(channels, 0, channels, dtype):
                yield "query_gradient", tile, dtype, {"C": channels}
                yield "prototype_gradient", tile, dtype, {"C": channels}
        yield "reduce_scores", reduction_tiles(C, V, dtype)[0], dtype, {"C": C, "V": V}
        tile = gradient_tiles(C, 0, C, dtype)[0]
        for reduction in ("softmax", "max", "logsumexp"):
            for kernel in ("query_gradient", "prototype_gradient"):
                yield kernel, tile, dtype, {"C": C, "REDUCTION": reduction, "SHARERS": N}
        tile = gradient_tiles(C, V, C, dtype)[0]
        for kernel in ("query_gradient", "prototype_gradient"):
            yield kernel, tile, dtype, {"C": C, "V": V}
        tile = gradient_tiles(C, V, V, dtype)[0]
        yield "prototype_gradient", tile, dtype, {"C": C, "V": V, "OF_VALUES": True}
        for reduction in ("max", "logsumexp"):
            tile = reduction_tiles(C, 0, dtype)[0]
            yield "reduce_scores", tile, dtype, {"C": C, "REDUCTION": reduction}
            yield "combine_parts", tile, dtype, {"REDUCTION": reduction}
    tile = reduction_tiles(C, V, torch.float32)[0]
    yield "reduce_scores", tile, torch.float32, {"C": C, "V": V, **ONES}
    yield "combine_parts", tile, torch.float32, {"V": V, **ONES}
    for kernel in ("query_gradient", "prototype_gradient"):
        for reduction in ("softmax", "max"):
            yield kernel, tile, torch.float32, {"C": C, "REDUCTION": reduction, **ONES}


def compiled(kernel, tile, dtype, capability, constants):
    """Compile a kernel as a launch with contiguous operands would, without a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget

    precision = "ieee" if dtype == torch.float32 else "tf32"
    constants = {
        **{"V": 0, "REDUCTION": "softmax", "SHARERS": 1, "OF_VALUES": False, "BLOCK_V": 16},
        **{"BOUNDED": constants.get("V", 0) == 0, "PRECISION": precision},
        **dict.fromkeys(("prototypes_stride_c", "query_stride_l", "values_stride_v"), 1),
        **asdict(tile),
        **constants,
    }
    names = kernel.arg_names
    constants = {name: constants[name] for name in names if name in constants}
    operand = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    kept = "*i64" if constants["REDUCTION"] == "max" else "*fp32"
    types = {
        **dict.fromkeys(("query", "prototypes", "values", "result"), operand),
        **dict.fromkeys(("lengths", "query_lengths", "norms", "grad", "centre"), "*fp32"),
        **{"reduced": "*fp32", "part_reduced": "*fp32", "kept": kept, "part_kept": kept},
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
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={**options, "enable_fp_fusion": True},
    )


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("case", list(compile_cases()), ids=lambda case: case[0])
def test_compiles(case, capability, tmp_path, monkeypatch):
    from fsmis_components.ops.similarity import (
        triton_kernels,
        triton_prototype_gradient,
        triton_query_gradient,
    )

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    name, tile, dtype, constants = case
    kernels = (triton_kernels, triton_prototype_gradient, triton_query_gradient)
    kernel = next(vars(module)[name] for module in kernels if name in vars(module))
    result = compiled(kernel, tile, dtype, capability, constants)
    assert result.asm["cubin"]
    assert result.metadata.shared <= SHARED_MEMORY[capability]
    products = name != "combine_parts" and constants.get("REDUCTION") != "max"
    if dtype == torch.bfloat16 and products:
        assert "mma" in result.asm["ptx"]  # tensor cores
    if dtype == torch.float32:
        assert "tf32" not in result.asm["ptx"]  # only when asked


@pytest.fixture
def tf32(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param else "highest")
    yield request.param
    torch.set_float32_matmul_precision(before)


@needs_triton
@pytest.mark.parametrize("tf32", [False, True], indirect=True)
def test_tf32_is_used_when_asked_for(tf32, tmp_path, monkeypatch):
    from fsmis_components.ops.similarity.triton_kernels import reduce_scores

    precision = triton_backend._precision(torch.float32)
    assert precision == ("tf32" if tf32 else "ieee")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = reduction_tiles(C, 0, torch.float32)[0]
    constants = {"C": C, "PRECISION": precision}
    result = compiled(reduce_scores, tile, torch.float32, 90, constants)
    assert ("tf32" in result.asm["ptx"]) == tf32
