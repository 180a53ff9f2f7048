from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paperlab.tempo.memory.peak import LiveStorages
from paperlab.tempo.ops import attention
from paperlab.tempo.ops.attention import softmax_dropout_matmul, tempo_attention_forward
from tests.tempo.kept import kept_bytes, relative_error

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
PARITY_MODES = ["byte", "bit", "sign"]
MODES = [*PARITY_MODES, "philox"]


def inputs(*batch: int, S: int = 5, T: int = 7, D: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    scores, value = 3 * torch.randn(*batch, S, T), torch.randn(*batch, T, D)
    return [tensor.to(dtype).requires_grad_() for tensor in (scores, value)]


def eager(scores: Tensor, value: Tensor, p: float) -> Tensor:
    return F.dropout(F.softmax(scores, -1), p) @ value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", PARITY_MODES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.9, 1.0])
def test_equals_the_unfused_ops_bit_for_bit(dtype, mode, p):
    """On the CPU output, gradients and the generator's end state, as the same kernels run on the same values."""
    tensors = inputs(2, 3, dtype=dtype)
    dO = torch.randn(2, 3, 5, 4).to(dtype)
    results = []
    for function in (lambda *t: softmax_dropout_matmul(*t, p, mask_mode=mode), lambda *t: eager(*t, p)):
        torch.manual_seed(1)
        out = function(*tensors)
        results.append((out, torch.get_rng_state(), *torch.autograd.grad(out, tensors, dO)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("heads", [2, 1])  # of V, for 2 heads of scores
def test_gradcheck(mode, p, heads):
    scores, value = inputs(1, 2, S=3, T=4, D=2, dtype=torch.float64)

    def function(scores: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(3)
        return softmax_dropout_matmul(scores, value, p, mask_mode=mode)

    assert torch.autograd.gradcheck(function, (scores, value[:, :heads].detach().requires_grad_()))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_equal_autograd_with_the_same_mask(mode):
    scores, value = inputs(2, 3, T=5, D=5, dtype=torch.float64)
    dO = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.manual_seed(7)
    mask = softmax_dropout_matmul(scores, torch.eye(5).double().expand(2, 3, 5, 5), 0.4, mask_mode=mode) != 0
    torch.manual_seed(7)
    ours = torch.autograd.grad(softmax_dropout_matmul(scores, value, 0.4, mask_mode=mode), (scores, value), dO)
    theirs = torch.autograd.grad((scores.softmax(-1) * mask / 0.6) @ value, (scores, value), dO)
    assert max(map(relative_error, ours, theirs)) <= 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_mask_of_backward_is_the_mask_of_forward(mode, p):
    """With V and dO the identity, the output is Dp and dV its transpose: they must be the same numbers."""
    n = 48
    scores = torch.randn(4, n, n, requires_grad=True)
    eye = torch.eye(n).expand(4, n, n).clone().requires_grad_()
    out = softmax_dropout_matmul(scores, eye, p, mask_mode=mode)
    (dV,) = torch.autograd.grad(out, eye, torch.eye(n).expand_as(out))
    assert torch.equal(dV.mT, out)
    rate, total = (out != 0).double().mean().item(), out.numel()
    assert abs(rate - (1 - p)) <= 4 * math.sqrt(p * (1 - p) / total)


@pytest.mark.parametrize("mode", MODES)
def test_underflowed_probabilities_have_no_gradient(mode):
    """A P of 0.0 has gradient 0 whatever its mask, so it does not matter that "sign" has only -0.0 to tell it."""
    scores = torch.tensor([[[0.0, -300.0, -300.0, 1.0]]]).repeat(64, 1, 1).requires_grad_()
    value = torch.randn(64, 4, 2, requires_grad=True)
    torch.manual_seed(0)
    out = softmax_dropout_matmul(scores, value, 0.5, mask_mode=mode)
    dZ, _ = torch.autograd.grad(out.sum(), (scores, value))
    assert torch.isfinite(dZ).all()
    assert (dZ[..., 1:3] == 0).all()


def test_philox_follows_the_torch_generator():
    scores, value = inputs(2, 3)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return softmax_dropout_matmul(scores, value, 0.5, mask_mode="philox")

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    torch.manual_seed(1)
    calls = [softmax_dropout_matmul(scores, value, 0.5, mask_mode="philox") for _ in range(2)]
    assert not torch.equal(*calls)


@pytest.mark.parametrize("mode", MODES)
def test_eval_and_zero_dropout_leave_generator_and_mask_alone(mode):
    scores, value = inputs(2, 3)
    state = torch.get_rng_state()
    for p, training in ((0.0, True), (0.7, False)):
        ours = kept_bytes(lambda p=p, t=training: softmax_dropout_matmul(scores, value, p, t, mask_mode=mode))
        assert ours == [2 * 3 * 5 * 7 * 4, 2 * 3 * 7 * 4 * 4]
        assert torch.equal(softmax_dropout_matmul(scores, value, p, training), eager(scores, value, 0.0))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert kept_bytes(lambda: softmax_dropout_matmul(scores, value, 0.5, mask_mode=mode)) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_bytes_kept(mode, dtype):
    """P, V and the mask, of which there are 105 elements: not a multiple of 8."""
    scores, value = inputs(3, S=5, T=7, dtype=dtype)
    mask_bytes = {"byte": [105], "bit": [14], "sign": [], "philox": [8]}[mode]
    found = kept_bytes(lambda: softmax_dropout_matmul(scores, value, 0.1, mask_mode=mode))
    assert found == [105 * dtype.itemsize, *mask_bytes, 3 * 7 * 4 * dtype.itemsize]
    meta = [tensor.detach().to("meta").requires_grad_() for tensor in (scores, value)]
    assert kept_bytes(lambda: softmax_dropout_matmul(*meta, 0.1, mask_mode=mode)) == found


def test_value_cut_from_a_fused_projection_does_not_hold_it_alive():
    scores, _ = inputs(2, 3)
    fused = torch.randn(2, 7, 3 * 12, requires_grad=True)
    value = fused[..., 24:].unflatten(-1, (3, 4)).transpose(1, 2)
    assert kept_bytes(lambda: softmax_dropout_matmul(scores, value)) == [2 * 3 * 35 * 4, 2 * 3 * 28 * 4]


def test_two_matmuls_backward_for_one_forward():
    scores, value = inputs(2, 3, S=16, T=16, D=8)
    with FlopCounterMode(display=False) as forward:
        out = softmax_dropout_matmul(scores, value, 0.1)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == 2 * 2 * 3 * 16 * 16 * 8
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_backward_transients_are_two_buffers_of_P(p, dtype):
    scores, value = inputs(2, 4, S=64, T=64, D=2, dtype=dtype)
    buffer, small = 2 * 4 * 64 * 64 * dtype.itemsize, 4 * value.numel() * dtype.itemsize
    out = softmax_dropout_matmul(scores, value, p)
    kept = [tensor.untyped_storage() for tensor in out.grad_fn.saved_tensors if tensor is not None]
    with LiveStorages({storage._cdata: storage for storage in kept}) as tracker:
        torch.autograd.grad(out, (scores, value), torch.ones_like(out))
    peak, _ = tracker.peaks["forward"]
    assert buffer < peak <= 2 * buffer + small


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lowest", [float("-inf"), None])
def test_fully_masked_rows_equal_the_unfused_ops(dtype, lowest):
    """A row of -inf gives NaN, a row of the lowest finite number, Hugging Face's mask, the mean of V."""
    scores, value = inputs(2, 3, dtype=dtype)
    bias = torch.zeros(5, 7, dtype=dtype)
    bias[1], bias[2, 3:] = (torch.finfo(dtype).min if lowest is None else lowest,) * 2
    results = []
    for function in (softmax_dropout_matmul, eager):
        torch.manual_seed(0)
        out = function(scores + bias, value, 0.3)
        results.append((out, *torch.autograd.grad(out.sum(), (scores, value))))
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(*results, strict=True))
    assert results[0][0].isnan().any() == (lowest is not None)


def test_autocast_keeps_P_in_the_low_precision():
    """Forward equals the framework's, which keeps P in fp32; P, mask and V take 2 + 1 bytes and 2 bytes here."""
    scores, value = inputs(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        theirs = eager(scores, value, 0.2)
        torch.manual_seed(0)
        ours = softmax_dropout_matmul(scores, value, 0.2)
        kept = kept_bytes(lambda: softmax_dropout_matmul(scores, value, 0.2))
    assert kept == [2 * 3 * 35 * 2, 2 * 3 * 35, 2 * 3 * 28 * 2]
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(out.float().sum(), (scores, value)) for out in (ours, theirs)]
    assert [g.dtype for g in gradients[0]] == [torch.float32] * 2
    assert max(map(relative_error, *gradients)) <= 1e-2


def test_bad_arguments():
    scores, value = inputs(2, 3)
    with pytest.raises(ValueError, match=r"dropout_p must lie in \[0, 1\], got 1.5"):
        softmax_dropout_matmul(scores, value, 1.5)
    with pytest.raises(ValueError, match=r"mask_mode must be one of .* got 'nibble'"):
        softmax_dropout_matmul(scores, value, 0.1, mask_mode="nibble")
    for bad in (value[..., :6, :], value[:, :2], value[0]):
        with pytest.raises(ValueError, match=r"it should end in \(7, D\)"):
            softmax_dropout_matmul(scores, bad)


COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("bert", {**COMMON, "vocab_size": 40}),
    "Roberta": ("roberta", {**COMMON, "vocab_size": 40}),
    "DistilBert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 40}),
    "GPT2": (
        "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "ViT": ("vit", {**COMMON, "image_size": 16, "patch_size": 4, "attention_probs_dropout_prob": 0.1}),
    "Llama": ("llama", {**COMMON, "vocab_size": 40, "num_key_value_heads": 2, "attention_dropout": 0.1}),
}


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    _, options = MODELS[name]
    attention.register()
    attention.register()
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options)).train()
    if name == "ViT":
        return model, {"pixel_values": torch.randn(2, 3, 16, 16)}
    padding = torch.ones(2, 9, dtype=torch.long)
    padding[1, 6:] = 0
    return model, {"input_ids": torch.randint(4, 40, (2, 9)), "attention_mask": padding}


def run(model: nn.Module, batch: dict[str, Tensor], implementation: str, precision: str) -> tuple[Tensor, list[Tensor]]:
    model.set_attn_implementation(implementation)
    model.zero_grad()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        out = model(**batch)[0]
    out.float().square().sum().backward()
    # a shift of all keys moves no probability: the true gradient of their bias is 0, what is there is noise
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return out.detach(), [
        g.clone() for name, g in named if not name.endswith(("key.bias", "k_lin.bias", "k_proj.bias"))
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
def test_models_equal_their_eager_attention(name, precision):
    model, batch = build(name)
    if precision == "bf16":
        model = model.bfloat16()
        batch = {key: t.bfloat16() if t.is_floating_point() else t for key, t in batch.items()}
    (ours, gradients), (theirs, reference) = (run(model, batch, kind, precision) for kind in ("tempo", "eager"))
    assert torch.equal(ours, theirs)
    assert max(map(relative_error, gradients, reference)) <= (5e-6 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "ViT"])
def test_output_attentions_falls_back_to_eager(name):
    model, batch = build(name)
    found = []
    for implementation in ("tempo", "eager"):
        model.set_attn_implementation(implementation)
        torch.manual_seed(2)
        found.append(model(**batch, output_attentions=True).attentions)
    assert len(found[0]) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_unknown_attention_is_refused():
    class Unknown(nn.Module):
        training = True

    tensors = [torch.randn(1, 2, 3, 4) for _ in range(3)]
    with pytest.raises(ValueError, match="attention of Unknown is none of albert, bert"):
        tempo_attention_forward(Unknown(), *tensors, None)
