"""The Triton kernels against the torch path: in the interpreter on CPU tensors, compiled on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperlab.tempo.ops import dispatch, dropout
from paperlab.tempo.ops.attention import softmax_dropout_matmul
from paperlab.tempo.ops.kernels import launches
from tests.tempo.kept import relative_error

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}


def inputs(shape: tuple[int, ...], D: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    torch.manual_seed(sum(shape))
    scores, value = 3 * torch.randn(shape), torch.randn(*shape[:-2], shape[-1], D)
    return [t.to(device, dtype).requires_grad_() for t in (scores, value)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5, 7), (2, 9, 33), (1, 3, 128)])
@pytest.mark.parametrize("mode", ["byte", "bit", "sign"])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_backward_equals_the_torch_path(dtype, shape, mode, p, device):
    tensors = inputs(shape, 6, dtype, device)
    dO = torch.randn(*shape[:-1], 6).to(device, dtype)
    results = []
    for backend in ("torch", "triton"):
        torch.manual_seed(11)
        before = launches["softmax_dropout_backward"], launches["dropout_apply"]
        out = softmax_dropout_matmul(*tensors, p, mask_mode=mode, backend=backend)
        results.append((out, *torch.autograd.grad(out, tensors, dO)))
        fused = backend == "triton"
        assert launches["softmax_dropout_backward"] - before[0] == fused
        assert launches["dropout_apply"] - before[1] == (fused and p > 0)
    assert torch.equal(results[0][0], results[1][0])
    for ours, reference in zip(results[1][1:], results[0][1:], strict=True):
        scale = reference.abs().max().item()
        assert torch.allclose(ours, reference, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 0.7), (torch.bfloat16, 0.2), (torch.float16, 0.5)])
def test_philox_forward_and_backward_share_one_mask(dtype, p, device):
    n = 12
    scores, eye = torch.randn(2, n, n, device=device).to(dtype), torch.eye(n, device=device, dtype=dtype)
    eye = eye.expand(2, n, n).contiguous().requires_grad_()
    before = launches["softmax_dropout_forward"]
    torch.manual_seed(4)
    out = softmax_dropout_matmul(scores.requires_grad_(), eye, p, mask_mode="philox", backend="triton")
    assert launches["softmax_dropout_forward"] == before + 1
    dV, dZ = torch.autograd.grad(out, (eye, scores), eye.detach())
    assert torch.allclose(dV.mT, out, rtol=2 * TOLERANCE[dtype])
    mask = out != 0
    assert torch.equal(dV.mT != 0, mask)
    assert abs(mask.double().mean().item() - (1 - p)) <= 4 * math.sqrt(p * (1 - p) / mask.numel())
    P = scores.detach().float().softmax(-1)
    reference = dropout.scores_gradient(eye.detach().float().clone(), P, mask, p, "byte", torch.float32)
    assert relative_error(dZ, reference) <= 2 * TOLERANCE[dtype]
    torch.manual_seed(4)
    again = softmax_dropout_matmul(scores, eye, p, mask_mode="philox", backend="triton")
    torch.manual_seed(5)
    other = softmax_dropout_matmul(scores, eye, p, mask_mode="philox", backend="triton")
    assert torch.equal(again, out)
    assert not torch.equal(other != 0, mask)
    assert len(set(map(tuple, mask.flatten(0, 1).tolist()))) >= 20  # of 24 rows: the counter runs on between them


@pytest.mark.parametrize("mode", ["byte", "bit", "sign", "philox"])
@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 3), (2, 3, 0)])
def test_empty(shape, mode, device):
    scores, value = inputs(shape, 2, torch.float32, device)
    out = softmax_dropout_matmul(scores, value, 0.5, mask_mode=mode, backend="triton")
    assert out.shape == (*shape[:-1], 2)
    out.sum().backward()
    assert scores.grad.shape == scores.shape
    assert value.grad.shape == value.shape


def test_mixed_precision_and_grouped_heads(device):
    """fp32 scores with V in bf16, as under autocast, and two heads of V for four of scores."""
    scores = torch.randn(2, 4, 5, 7, device=device, requires_grad=True)
    value = torch.randn(2, 2, 7, 3, device=device).bfloat16().requires_grad_()
    dO = torch.randn(2, 4, 5, 3, device=device).bfloat16()
    results = []
    for backend in ("torch", "triton"):
        torch.manual_seed(0)
        out = softmax_dropout_matmul(scores, value, 0.25, backend=backend)
        results.append(torch.autograd.grad(out, (scores, value), dO))
    assert [g.dtype for g in results[1]] == [torch.float32, torch.bfloat16]
    assert max(map(relative_error, *results)) <= 1e-2


def test_fp64_and_long_rows_take_the_torch_path(device, monkeypatch):
    before = launches.copy()
    scores, value = inputs((2, 3, 4), 2, torch.float64, device)
    softmax_dropout_matmul(scores, value, 0.5, backend="triton").sum().backward()
    monkeypatch.setattr(dispatch, "MAX_TRITON_ROW", 3)
    scores, value = inputs((2, 3, 4), 2, torch.float32, device)
    softmax_dropout_matmul(scores, value, 0.5, backend="triton").sum().backward()
    assert launches == before
