from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlab.tempo.dropin import patch
from paperlab.tempo.ops import layernorm
from paperlab.tempo.ops.layernorm import InplaceLayerNorm, inplace_layer_norm
from paperlab.tempo.ops.lost_channels import MAX_ERROR, lost_channels, lost_channels_of_all
from paperlab.tempo.studies.layernorm_error import error_table
from tests.tempo.kept import kept_bytes, relative_error

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SPECIAL = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, -1e-40, 1e30, 1e-30, 65504.0]


def affine(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[nn.Parameter, nn.Parameter]:
    sign = torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)
    weight = (0.2 + torch.rand(shape)) * sign
    return nn.Parameter(weight.to(dtype)), nn.Parameter(torch.randn(shape).to(dtype))


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7.25), b.nan_to_num(7.25))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 10), (2, 3, 10), (2, 2, 3, 10), (0, 10), (1, 1, 10), (3, 0)])
def test_forward_is_the_frameworks(dtype, shape):
    weight, bias = affine(shape[-1], dtype=dtype)
    x = torch.randn(shape).to(dtype)
    assert same(inplace_layer_norm(x, weight, bias, 1e-12), F.layer_norm(x, shape[-1:], weight, bias, 1e-12))


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_of_special_values_is_the_frameworks(dtype):
    rows = [torch.tensor([value, *torch.randn(9).tolist()]) for value in SPECIAL]
    x = torch.stack([*rows, torch.full((10,), 3.0), torch.zeros(10), torch.full((10,), -0.0)]).to(dtype)
    for parameters in (affine(10, dtype=dtype), (None, None)):
        assert same(inplace_layer_norm(x, *parameters), F.layer_norm(x, (10,), *parameters))
        assert same(inplace_layer_norm(x.T.contiguous().T, *parameters), F.layer_norm(x, (10,), *parameters))


def test_several_normalized_dims_and_mixed_dtypes():
    weight, bias = affine(3, 4)
    x = torch.randn(5, 2, 3, 4)
    assert same(inplace_layer_norm(x, weight, bias), F.layer_norm(x, (3, 4), weight, bias))
    assert same(inplace_layer_norm(x, None, None, normalized_shape=(2, 3, 4)), F.layer_norm(x, (2, 3, 4)))
    low = x.bfloat16()  # fp32 parameters on bf16 activations, as the CPU kernel allows
    assert same(inplace_layer_norm(low, weight, bias), F.layer_norm(low, (3, 4), weight, bias))
    with pytest.raises(ValueError, match=r"trailing dims should be \(3, 4\)"):
        inplace_layer_norm(x[..., :2], weight, bias)


@pytest.mark.parametrize("shape", [(4, 5), (2, 2, 5), (2, 1, 2, 5)])
@pytest.mark.parametrize("case", ["affine", "no bias", "no affine", "two dims", "gamma zero"])
def test_gradcheck(shape, case):
    dims = shape[-2:] if case == "two dims" else shape[-1:]
    weight, bias = affine(*dims, dtype=torch.float64)
    if case == "gamma zero":
        weight.data[1] = weight.data[3] = 0.0
    parameters = {"no bias": (weight, None), "no affine": (None, None)}.get(case, (weight, bias))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return inplace_layer_norm(x, *parameters, normalized_shape=dims)

    assert torch.autograd.gradcheck(function, (x, *parameters))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])  # below, eps takes x-hat from unit variance
def test_gradients_agree_with_fp64_whatever_gamma_and_beta(dtype, scale):
    """Gammas over six decades, zeros and huge betas among them: the fallback bounds the error of every channel."""
    x = (scale * (torch.randn(64, 96) + 2)).to(dtype)
    weight = (10.0 ** torch.empty(96).uniform_(-5, 1) * torch.randn(96).sign()).to(dtype)
    weight[::17] = 0.0
    bias = (3 * torch.randn(96)).to(dtype)
    dy = torch.randn(64, 96).to(dtype)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    true = torch.autograd.grad(F.layer_norm(exact[0], (96,), *exact[1:]), exact, dy.double())
    y = inplace_layer_norm(*leaves)
    bound = 4 * MAX_ERROR[dtype]
    for ours, reference in zip(torch.autograd.grad(y, leaves, dy), true, strict=True):
        assert relative_error(ours, reference) <= bound


def test_fp32_gradients_match_the_framework():
    x = torch.randn(32, 48, requires_grad=True)
    weight, bias = affine(48)
    dy = torch.randn(32, 48)
    ours = torch.autograd.grad(inplace_layer_norm(x, weight, bias), (x, weight, bias), dy)
    theirs = torch.autograd.grad(F.layer_norm(x, (48,), weight, bias), (x, weight, bias), dy)
    assert max(map(relative_error, ours, theirs)) <= 5e-6


def test_error_table_agrees_with_an_independent_evaluation():
    """Within 3x of its fp32 rows without fallback; with it, gamma and beta no longer matter."""
    table = error_table(1024, 256).set_index(["dtype", "gamma", "beta", "one_gamma_zero", "arm", "quantity"])
    error = table["relative_l2"]
    independent = {
        ("float32", 1.0, 0.0): (6e-8, 1.5e-7),
        ("float32", 1e-2, 1.0): (1.4e-7, 2.7e-6),
        ("float32", 1e-3, 1.0): (1.2e-6, 2.7e-5),
        ("bfloat16", 1.0, 0.0): (7.5e-5, 1.7e-3),
        ("bfloat16", 1e-2, 1.0): (7.9e-3, 0.18),
        ("float16", 1e-3, 1.0): (None, 0.23),
    }
    for (dtype, gamma, beta), bounds in independent.items():
        for quantity, bound in zip(("dx", "dgamma"), bounds, strict=True):
            found = error[dtype, gamma, beta, False, "no fallback", quantity]
            assert bound is None or bound / 3 <= found <= 3 * bound
            assert error[dtype, gamma, beta, False, "per-channel fallback", quantity] <= 3 * found
    low = error[error.index.get_level_values("dtype") != "float32"].xs("per-channel fallback", level="arm")
    assert (low.xs("dgamma", level="quantity") <= 3 * 1.7e-3).all()
    zero = error.xs(True, level="one_gamma_zero")
    assert zero.xs("no fallback", level="arm").isna().all()
    assert (zero.xs("clamped gamma", level="arm") > 5e-4).all()  # finite and wrong
    assert zero.xs("per-channel fallback", level="arm").max() <= 3 * 1.7e-3


def test_lost_channels():
    weight = torch.tensor([1.0, 0.0, -1e-3, 1e-3, -2.0, 1e-30])
    bias = torch.tensor([0.0, 1.0, 0.5, 0.0, -3.0, 0.0])
    assert lost_channels(weight, bias, torch.float32).tolist() == [1, 2]
    assert lost_channels(weight, bias, torch.float32, max_error=1.0).tolist() == [1]
    assert lost_channels(weight[:1], None, torch.bfloat16) is None
    assert lost_channels(torch.zeros(3), None, torch.float32).tolist() == [0, 1, 2]
    # fp16 underflows: gamma * x-hat has few bits left although |beta / gamma| is 0
    assert lost_channels(torch.tensor([1e-6, 1e-2]), None, torch.float16).tolist() == [0]
    assert (
        lost_channels(weight, 4 * bias, torch.float32).tolist()
        == lost_channels(weight / 4, bias, torch.float32).tolist()
    )


def test_several_norms_are_looked_through_at_once():
    generator = torch.Generator().manual_seed(0)
    norms = []
    for size in (3, 8, 1, 5):
        weight, bias = torch.randn(size, generator=generator), 100 * torch.randn(size, generator=generator)
        weight[:1] = 0.0 if size != 8 else 1.0
        norms.append((weight, bias if size != 5 else None))
    together = lost_channels_of_all([*norms, (None, None)], torch.bfloat16)
    alone = [lost_channels(*norm, torch.bfloat16) for norm in norms]
    assert together[-1] is None
    for found, expected in zip(together, alone, strict=False):
        assert (found is None and expected is None) or torch.equal(found, expected)
    assert [None if x is None else 0 in x for x in alone][::2] == [True, True]


def test_peers_share_one_look_per_optimizer_step(monkeypatch):
    looks = []

    def count(parameters, *rest):
        looks.append(len(parameters))
        return lost_channels_of_all(parameters, *rest)

    monkeypatch.setattr(layernorm, "lost_channels_of_all", count)
    model = torch.nn.Sequential(*(torch.nn.LayerNorm(8) for _ in range(5)))
    patch.apply(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
    assert looks == [5, 5, 5]
    with torch.no_grad():
        model[2].weight[1] = 0.0
    model(torch.randn(4, 8))
    assert [norm.fallbacks for norm in model] == [0, 0, 1, 0, 0]
    patch.revert(model)
    assert all("peers" not in vars(norm) for norm in model)


def test_module_looks_at_its_parameters_once_per_version(monkeypatch):
    asked = []

    def count(*arguments):
        asked.append(arguments)
        return lost_channels_of_all(*arguments)

    monkeypatch.setattr(layernorm, "lost_channels_of_all", count)
    module = InplaceLayerNorm(8)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn(4, 8)
    for step in range(3):
        for _ in range(2):  # gradient accumulation
            (module(x) ** 3).mean().backward()
        assert len(asked) == step + 1
        optimizer.step()
    with torch.no_grad():
        module(x)
        module.weight[3] = 0.0
    assert len(asked) == 3
    assert module.fallbacks == 0
    module(x)
    assert module.fallbacks == 1
    module.weight.data = torch.ones(8)  # a swapped storage is noticed though the version stays
    module(x)
    assert module.fallbacks == 0
    assert len(asked) == 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_kept(dtype):
    """y and one 1/sigma per row; nothing of the input. Lost channels add their columns and their indices."""
    rows, channels = 24, 40
    e, stats = dtype.itemsize, 8 if dtype == torch.float64 else 4
    module = InplaceLayerNorm(channels, dtype=dtype)
    x = torch.randn(2, rows // 2, channels, dtype=dtype).requires_grad_()
    assert kept_bytes(lambda: module(x), *module.parameters()) == [rows * channels * e, rows * stats]
    with torch.no_grad():
        module.weight[[3, 7]] = 0.0
    found = kept_bytes(lambda: module(x), *module.parameters())
    assert found == [rows * channels * e, rows * stats, 2 * 8, rows * 2 * e]
    with torch.no_grad():
        assert kept_bytes(lambda: module(x)) == []
    with torch.inference_mode():
        assert kept_bytes(lambda: module(x)) == []
    assert kept_bytes(lambda: InplaceLayerNorm(channels, elementwise_affine=False, dtype=dtype)(x.detach())) == []


def test_y_is_shared_with_the_next_linear():
    norm, linear = InplaceLayerNorm(16), nn.Linear(16, 4)
    vanilla = nn.LayerNorm(16)
    x = torch.randn(2, 6, 16, requires_grad=True)
    parameters = (*norm.parameters(), *vanilla.parameters(), *linear.parameters())
    ours = sum(kept_bytes(lambda: linear(norm(x)), *parameters))
    theirs = sum(kept_bytes(lambda: linear(vanilla(x)), *parameters))
    assert theirs - ours == 12 * (16 + 1) * 4  # the input and the means


def test_under_autocast_only_the_low_precision_output_saves():
    """Per row of N: the framework keeps 4N + 2N, so does the naive in-place op, the emitting one 2N."""
    rows, channels = 12, 16
    x = torch.randn(rows, channels, requires_grad=True)
    linear = nn.Linear(channels, 32)
    arms = {"framework": nn.LayerNorm(channels)} | {name: InplaceLayerNorm(channels) for name in ("naive", "emitting")}
    arms["naive"].low_precision_output = False
    found = {}
    for name, norm in arms.items():
        with torch.autocast("cpu", torch.bfloat16):
            sizes = kept_bytes(lambda norm=norm: linear(norm(x)), *norm.parameters(), *linear.parameters())
        found[name] = sum(sizes) - 2 * linear.weight.numel()  # autocast's copy of the weight
    unit, statistics = rows * channels, 4 * rows
    assert found == {
        "framework": 6 * unit + 2 * statistics,
        "naive": 6 * unit + statistics,
        "emitting": 2 * unit + statistics,
    }


@pytest.mark.parametrize("in_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_under_autocast_are_the_frameworks_then_cast(in_dtype):
    x = (3 * torch.randn(64, 40) + 1).to(in_dtype)
    module = InplaceLayerNorm(40)
    if in_dtype == torch.float64:  # left alone by autocast
        module.double()
    with torch.no_grad():
        module.weight.normal_()
        module.bias.normal_()
    with torch.autocast("cpu", torch.bfloat16):
        framework = F.layer_norm(x, (40,), module.weight, module.bias)
        assert same(module(x), framework if in_dtype == torch.float64 else framework.bfloat16())
        assert same(inplace_layer_norm(x, module.weight, module.bias), framework)


def test_gradients_under_autocast():
    x = torch.randn(32, 24, requires_grad=True)
    norm, twin = InplaceLayerNorm(24), nn.LayerNorm(24)
    dy = torch.randn(32, 24).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = norm(x), twin(x).bfloat16()
    ours.backward(dy)
    gradient, x.grad = x.grad, None
    theirs.backward(dy)
    assert gradient.dtype == torch.float32
    assert norm.weight.grad.dtype == torch.float32
    assert relative_error(gradient, x.grad) <= 4e-3
    assert relative_error(norm.weight.grad, twin.weight.grad) <= 4e-3


def test_from_module_is_the_same_module_in_another_class():
    vanilla = nn.LayerNorm(12, eps=1e-12).eval()
    calls = []
    vanilla.register_forward_hook(lambda *_: calls.append(1))
    module = InplaceLayerNorm.from_module(vanilla, max_error=0.5)
    assert module.weight is vanilla.weight
    assert module.bias is vanilla.bias
    assert (module.eps, module.normalized_shape, module.training) == (1e-12, (12,), False)
    assert list(module.state_dict()) == list(vanilla.state_dict())
    x = torch.randn(3, 12)
    assert same(module(x), vanilla(x))
    assert calls == [1, 1]

    class Other(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match="Other has a forward of its own"):
        InplaceLayerNorm.from_module(Other(3))


def test_meta_device():
    module = InplaceLayerNorm(1024, device="meta")
    x = torch.empty(8, 512, 1024, device="meta", requires_grad=True)
    assert kept_bytes(lambda: module(x), *module.parameters()) == [8 * 512 * 1024 * 4, 8 * 512 * 4]
    module(x).sum().backward()
    assert module.weight.grad.shape == (1024,)
