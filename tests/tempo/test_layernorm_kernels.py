"""The Triton kernels against the torch path: in the interpreter on CPU tensors, compiled on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from paperlab.tempo.ops import dispatch
from paperlab.tempo.ops.kernels import launches
from paperlab.tempo.ops.layernorm import InplaceLayerNorm, inplace_layer_norm
from tests.tempo.kept import relative_error

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# the interpreter truncates to bf16, where torch and compiled kernels round
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def case(rows: int, channels: int, dtype: torch.dtype, device: torch.device, affine: str):
    torch.manual_seed(rows * channels)
    x = torch.randn(rows, channels).add(1).to(device, dtype).requires_grad_()
    weight, bias = torch.rand(channels) + 0.5, torch.randn(channels)
    if affine == "lost" and channels:
        weight[:: max(channels // 3, 1)] = 0.0
    weight, bias = (t.to(device, dtype).requires_grad_() for t in (weight, bias))
    return x, *{"none": (None, None), "no bias": (weight, None)}.get(affine, (weight, bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (13, 33), (5, 130), (2, 1024)])
@pytest.mark.parametrize("affine", ["full", "no bias", "none", "lost"])
def test_backward_equals_the_torch_path(dtype, shape, affine, device):
    tensors = case(*shape, dtype, device, affine)
    leaves = [t for t in tensors if t is not None]
    dy = torch.randn(shape).to(device, dtype)
    results = []
    for backend in ("torch", "triton"):
        before = launches["layernorm_backward"]
        y = inplace_layer_norm(*tensors, normalized_shape=shape[1:], backend=backend)
        results.append((y, *torch.autograd.grad(y, leaves, dy)))
        assert launches["layernorm_backward"] - before == (backend == "triton")
    assert torch.equal(results[0][0], results[1][0])
    for ours, reference in zip(results[1][1:], results[0][1:], strict=True):
        assert torch.allclose(ours, reference, rtol=ROUNDING[dtype], atol=4 * ROUNDING[dtype])


@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (13, 33), (2, 1024), (0, 5), (4, 0)])
def test_emitting_forward_equals_layer_norm_then_cast(out_dtype, shape, device):
    x, weight, bias = case(*shape, torch.float32, device, "full")
    before = launches["layernorm_forward"]
    ours = inplace_layer_norm(x, weight, bias, 1e-12, out_dtype=out_dtype, backend="triton")
    assert launches["layernorm_forward"] - before == (x.numel() > 0)
    theirs = F.layer_norm(x, shape[1:], weight, bias, 1e-12).to(out_dtype)
    assert ours.dtype == out_dtype
    assert torch.allclose(ours.float(), theirs.float(), rtol=ROUNDING[out_dtype], atol=1e-6)
    dy = torch.randn(shape).to(device, out_dtype)
    plain = inplace_layer_norm(x, weight, bias, 1e-12, out_dtype=out_dtype, backend="torch")
    gradients = [torch.autograd.grad(y, (x, weight, bias), dy) for y in (ours, plain)]
    assert all(g.dtype == torch.float32 for g in gradients[0])
    if min(shape) > 1:  # their outputs are an ulp apart
        assert max(map(relative_error, *gradients)) <= 4 * ROUNDING[out_dtype]


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)])
def test_empty(shape, device):
    x, weight, bias = case(*shape, torch.float32, device, "full")
    y = inplace_layer_norm(x, weight, bias, backend="triton")
    y.sum().backward()
    assert x.grad.shape == shape
    assert (weight.grad == 0).all()


def test_noncontiguous_gradients(device):
    x, weight, bias = case(6, 10, torch.float32, device, "lost")
    dy = torch.randn(10, 6).to(device).T
    gradients = [
        torch.autograd.grad(inplace_layer_norm(x, weight, bias, backend=backend), (x, weight, bias), dy)
        for backend in ("torch", "triton")
    ]
    assert max(map(relative_error, *gradients)) <= 1e-6
    y = inplace_layer_norm(x, weight, bias, backend="triton")
    (dx,) = torch.autograd.grad(y.sum(), x)  # an expanded gradient
    assert torch.isfinite(dx).all()


@pytest.mark.parametrize(("channels", "dtype"), [(17, torch.float32), (16, torch.float64)])
def test_long_rows_and_fp64_take_the_torch_path(channels, dtype, device, monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_TRITON_ROW", 16)
    before = launches.copy()
    x, weight, bias = case(2, channels, dtype, device, "full")
    inplace_layer_norm(x, weight, bias, backend="triton").sum().backward()
    assert launches == before
    assert torch.isfinite(x.grad).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_on_a_gpu_promotes_and_emits(dtype):
    module = InplaceLayerNorm(768, device="cuda")
    x = torch.randn(64, 768, device="cuda").to(dtype)
    with torch.autocast("cuda", torch.bfloat16):
        framework = F.layer_norm(x, (768,), module.weight, module.bias)
        assert framework.dtype == torch.float32
        assert torch.equal(inplace_layer_norm(x, module.weight, module.bias), framework)
        assert torch.allclose(module(x).float(), framework, rtol=2**-7, atol=1e-6)
        assert module(x).dtype == torch.bfloat16
