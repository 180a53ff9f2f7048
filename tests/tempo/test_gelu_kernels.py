from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from paperlab.tempo.ops import bits, kernels
from paperlab.tempo.ops import gelu as gelu_module
from paperlab.tempo.ops.gelu import inplace_gelu
from paperlab.tempo.ops.gelu_fit import derivative, side_threshold
from paperlab.tempo.ops.kernels import launches, pick_backend

pytestmark = pytest.mark.skipif(not kernels.available(), reason="triton is not installed")

FORMS = ["none", "tanh"]
ULP = {
    torch.float32: 1e-6,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
}  # of values in [1, 2), float32 with margin


def inputs(dtype: torch.dtype, numel: int, device: torch.device) -> torch.Tensor:
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 40, -40, 1e-40, -1e-40])
    return torch.cat([special, torch.linspace(-8, 8, 5000)[torch.randperm(5000)]])[:numel].to(dtype).to(device)


def run_python(code: str, **environment: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=env)


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", list(ULP))
@pytest.mark.parametrize(("numel", "block"), [(0, None), (1, 8), (8, 8), (501, 64), (5009, None)])
def test_side_bits_are_identical(approximate, dtype, numel, block, device):
    from paperlab.tempo.ops.kernels.gelu import pack_side

    x = inputs(dtype, numel, device)
    assert torch.equal(pack_side(x, approximate, block), bits.pack(x >= side_threshold(dtype, approximate)))


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", list(ULP))
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("numel", "block"), [(0, None), (1, 8), (501, 64), (5009, None)])
def test_backward_agrees_with_torch(approximate, dtype, packed, numel, block, device):
    from paperlab.tempo.ops.kernels.gelu import backward

    x = inputs(dtype, numel, device)
    y = F.gelu(x, approximate=approximate)
    side = x >= side_threshold(dtype, approximate)
    found = backward(torch.ones_like(y), y, bits.pack(side) if packed else side, approximate, block)
    assert found.dtype == dtype
    expected = derivative(y, side, approximate).to(dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=ULP[dtype], equal_nan=True)


@pytest.mark.parametrize("packed", [False, True])
def test_the_kernels_are_what_runs(packed, device, monkeypatch):
    """With the torch path poisoned the gradient is still right, and the counters say why."""
    x = torch.randn(3, 333, device=device).t().requires_grad_()
    (expected,) = torch.autograd.grad(F.gelu(x).sum(), x)
    monkeypatch.setattr(gelu_module, "derivative", None)
    monkeypatch.setattr(gelu_module.bits, "pack", None)
    before = launches.copy()
    (found,) = torch.autograd.grad(inplace_gelu(x, packed=packed, backend="triton").sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert launches - before == {"gelu_backward": 1} | ({"gelu_pack_side": 1} if packed else {})


def test_triton_refuses_what_it_cannot_do(device):
    x = torch.randn(4, device=device, requires_grad=True)
    with pytest.raises(TypeError, match=r"got evaluator='newton' on torch\.float32; use backend='torch'"):
        inplace_gelu(x, evaluator="newton", backend="triton")
    with pytest.raises(TypeError, match=r"got evaluator='fit' on torch\.float64"):
        inplace_gelu(x.double(), backend="triton")


def test_pick_backend(monkeypatch):
    x = torch.zeros(1)
    assert pick_backend(x) == pick_backend(x, "torch") == "torch"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert pick_backend(x, "triton") == "triton"
    with pytest.raises(RuntimeError, match="needs a CUDA tensor, got one on meta"):
        pick_backend(x.to("meta"), "triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(RuntimeError, match="set TRITON_INTERPRET=1 before triton is imported"):
        pick_backend(x, "triton")
    monkeypatch.setattr(kernels, "_FOUND", False)
    with pytest.raises(RuntimeError, match="needs the triton package"):
        pick_backend(x, "triton")
    with pytest.raises(ValueError, match="backend must be 'torch', 'triton' or None, got 'tpu'"):
        pick_backend(x, "tpu")


def test_plain_torch_runs_where_triton_cannot_be_imported():
    run_python("""
        import sys, torch
        from paperlab.tempo.ops.gelu import inplace_gelu
        sys.modules["triton"] = None
        inplace_gelu(torch.randn(4, requires_grad=True), packed=True).sum().backward()
    """)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_cuda_without_a_device(capability, tmp_path):
    """The interpreter forgives what the compiler does not; this covers every variant that is ever launched."""
    pytest.importorskip("triton.backends.nvidia")
    run_python(
        f"""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile
        from paperlab.tempo.ops.kernels import LAUNCH_OPTIONS, gelu

        def build(kernel, **arguments):
            names = kernel.arg_names
            signature = {{n: arguments[n] if isinstance(arguments[n], str) else "constexpr" for n in names}}
            constants = {{(i,): arguments[n] for i, n in enumerate(names) if signature[n] == "constexpr"}}
            source = ASTSource(kernel, signature=signature, constexprs=constants)
            built = compile(source, target=GPUTarget("cuda", {capability}, 32), options=LAUNCH_OPTIONS)
            assert built.asm["cubin"]
            assert "f64" not in built.asm["ptx"], "a constant has widened the arithmetic"

        for dtype in ("*fp32", "*fp16", "*bf16"):
            build(gelu._pack_side_kernel, x_ptr=dtype, packed_ptr="*u8", numel="i32", THRESHOLD=-0.75, BYTES=128)
            for side, form, numel in (("*u8", "none", "i32"), ("*i1", "tanh", "i64"), ("*u8", "tanh", 1)):
                build(gelu._backward_kernel, dy_ptr=dtype, y_ptr=dtype, side_ptr=side, dx_ptr=dtype, numel=numel,
                      PACKED=side == "*u8", BLOCK=1024, **gelu._fit_constants(form))
        """,
        TRITON_CACHE_DIR=str(tmp_path),
    )
