from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from paperlab.tempo.ops import gelu as gelu_module
from paperlab.tempo.ops.gelu import InplaceGELU, inplace_gelu
from paperlab.tempo.ops.gelu_fit import minimum

FORMS = ["none", "tanh"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def inputs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    torch.manual_seed(0)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 6e4, -6e4])
    return torch.cat([torch.linspace(-40, 40, 4001), torch.randn(1000), special]).to(dtype).to(device)


def gradient(function, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    torch.manual_seed(1)
    (dx,) = torch.autograd.grad((y := function(x)), x, torch.randn_like(y))
    return dx


def kept(function, x: torch.Tensor) -> list[torch.Tensor]:
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x)
    return saved


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_forward_is_bit_identical(approximate, dtype, packed, device):
    x = inputs(dtype, device)
    expected = F.gelu(x, approximate=approximate).view(BITS[dtype.itemsize])
    for needs_grad in (False, True):
        y = inplace_gelu(x.requires_grad_(needs_grad), approximate, packed=packed)
        assert torch.equal(y.detach().view(BITS[dtype.itemsize]), expected)


@pytest.mark.parametrize("approximate", FORMS)
def test_gradcheck_with_the_oracle(approximate):
    x_min = minimum(approximate).x
    near = [x_min + offset for offset in (-1e-2, -1e-3, 1e-3, 1e-2)]
    x = torch.cat([torch.linspace(-6, 6, 241, dtype=torch.float64), torch.tensor(near, dtype=torch.float64)])
    for evaluator in ("newton", "fit"):
        assert torch.autograd.gradcheck(
            lambda x, e=evaluator: inplace_gelu(x, approximate, evaluator=e),
            x.requires_grad_(),
            atol=1e-5,
            rtol=1e-3,
        )


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("packed", [False, True])
def test_gradient_is_torchs(approximate, dtype, tolerance, packed, device):
    x = inputs(dtype, device)
    found = gradient(lambda x: inplace_gelu(x, approximate, packed=packed), x)
    expected = gradient(lambda x: F.gelu(x, approximate=approximate), x)
    assert found.dtype == dtype
    assert torch.equal(found.isnan(), expected.isnan()), "NaN at x = ±inf and NaN, nowhere else"
    ok = ~expected.isnan()
    assert (found - expected)[ok].float().norm() <= tolerance * expected[ok].float().norm()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x[:0],
        lambda x: x[0],
        lambda x: x[:7],
        lambda x: x[:4000].view(40, 100).t(),
        lambda x: x[:4000].view(40, 100)[::3, 1::2],
        lambda x: x[:4096].view(2, 8, 16, 16).to(memory_format=torch.channels_last),
        lambda x: x[:1].expand(5, 3),
    ],
)
def test_any_layout_gives_the_same_gradient(layout, packed, device):
    x = inputs(torch.float32, device)
    found = gradient(lambda x: inplace_gelu(layout(x), packed=packed), x)
    expected = gradient(lambda x: F.gelu(layout(x)), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4, equal_nan=True)


def test_chunks_do_not_show(monkeypatch):
    x = inputs(torch.float32, torch.device("cpu"))
    whole = gradient(lambda x: inplace_gelu(x, backend="torch"), x).view(torch.int32)
    monkeypatch.setattr(gelu_module, "_CHUNK", 64)
    for packed in (False, True):
        found = gradient(lambda x, p=packed: inplace_gelu(x, packed=p, backend="torch"), x)
        assert torch.equal(found.view(torch.int32), whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numel", [0, 1, 8, 1001])
def test_keeps_the_output_and_one_byte_or_one_bit_per_element(dtype, numel, device):
    x = torch.randn(numel, dtype=dtype, device=device, requires_grad=True) * 1
    for packed, mask_bytes in ((False, numel), (True, math.ceil(numel / 8))):
        output, side = kept(lambda x, p=packed: inplace_gelu(x, packed=p), x)
        assert (output.dtype, output.shape) == (dtype, x.shape)
        assert side.untyped_storage().nbytes() == mask_bytes
        if numel:
            assert x.data_ptr() not in (output.data_ptr(), side.data_ptr())


def test_shares_the_output_with_the_next_linear():
    linear = nn.Linear(8, 8)
    tensors = kept(lambda x: linear(inplace_gelu(x)), torch.randn(4, 8, requires_grad=True))
    storages = {t.data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.data_ptr() != linear.weight.data_ptr()}
    assert sorted(storages.values()) == [4 * 8, 4 * 8 * 4]


def test_mutating_the_input_is_harmless():
    leaf = torch.randn(100, requires_grad=True)
    x = leaf * 1
    y = inplace_gelu(x)
    x.detach().zero_()
    (found,) = torch.autograd.grad(y.sum(), leaf)
    torch.testing.assert_close(found, torch.autograd.grad(F.gelu(leaf).sum(), leaf)[0], rtol=0, atol=2e-4)


def test_double_backward_is_a_clear_error():
    x = torch.randn(10, requires_grad=True)
    for weight in (torch.ones(10), torch.ones(10, requires_grad=True)):
        (dx,) = torch.autograd.grad(inplace_gelu(x), x, weight, create_graph=True)
        with pytest.raises(RuntimeError, match="in-place GELU can be differentiated only once"):
            dx.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_is_neutral(dtype, device):
    x = torch.randn(100, dtype=dtype, device=device, requires_grad=True)
    plain = torch.autograd.grad(inplace_gelu(x).sum(), x)[0]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = inplace_gelu(x)
        (inside,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == dtype
    assert torch.equal(inside, plain)


def test_module_survives_pickle_and_deepcopy():
    module = InplaceGELU("tanh", evaluator="newton", packed=True)
    assert repr(module) == "InplaceGELU(approximate='tanh', evaluator='newton', packed=True)"
    assert not module.state_dict()
    x = torch.randn(64)
    expected = gradient(module, x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        assert torch.equal(gradient(twin, x), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_runs_on_the_meta_device(packed):
    x = torch.empty(4, 1001, device="meta", dtype=torch.bfloat16, requires_grad=True)
    _, side = kept(lambda x: inplace_gelu(x, packed=packed), x)
    assert side.untyped_storage().nbytes() == (math.ceil(4004 / 8) if packed else 4004)
    (dx,) = torch.autograd.grad(inplace_gelu(x, packed=packed).sum(), x)
    assert (dx.shape, dx.dtype, dx.device.type) == (x.shape, x.dtype, "meta")


@pytest.mark.parametrize("packed", [False, True])
def test_fake_kernels_describe_the_real_ones(packed):
    checks = ("test_schema", "test_faketensor")
    x = torch.randn(6, 10).t()
    torch.library.opcheck(gelu_module._forward, (x, "none", packed, "torch"), test_utils=checks)
    y, side = gelu_module._forward(x, "none", packed, "torch")
    torch.library.opcheck(
        gelu_module._backward, (torch.ones_like(y), y, side, "none", "fit", "torch"), test_utils=checks
    )


@pytest.mark.filterwarnings("default:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does
def test_compiles_without_a_break_and_keeps_the_same_tensors():
    """The partitioner that trades memory for recomputation must find y and the mask, and no way to keep x."""
    from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd

    forward_graphs: list[torch.fx.GraphModule] = []

    def record(graph, _):
        forward_graphs.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=record,
        bw_compiler=lambda graph, _: make_boxed_func(graph.forward),
        partition_fn=min_cut_rematerialization_partition,
    )
    linear = nn.Linear(64, 8)

    def function(x):
        return linear(inplace_gelu(x * 1.0))

    x = torch.randn(32, 64)
    compiled = gradient(torch.compile(function, backend=backend, fullgraph=True), x)
    assert torch.equal(compiled, gradient(function, x))
    (output,) = forward_graphs[0].graph.find_nodes(op="output")
    result, *saved = (node.meta["val"] for node in output.args[0])
    assert result.shape == (32, 8)
    shapes = sorted((tuple(t.shape), str(t.dtype)) for t in saved if t.shape[0] == 32)
    assert shapes == [((32, 64), "torch.bool"), ((32, 64), "torch.float32")]
    kinds = {node.target for node in forward_graphs[0].graph.find_nodes(op="call_function", target=_forward_op())}
    assert kinds == {_forward_op()}


def _forward_op():
    return torch.ops.paperlab_tempo.gelu_forward.default


def test_unknown_options_are_named():
    x = torch.zeros(3)
    with pytest.raises(ValueError, match="approximate must be one of none, tanh; got 'erf'"):
        inplace_gelu(x, "erf")
    with pytest.raises(ValueError, match="evaluator must be one of fit, paper, newton; got 'exact'"):
        InplaceGELU(evaluator="exact")
    with pytest.raises(ValueError, match="backend must be 'torch', 'triton' or None, got 'cuda'"):
        inplace_gelu(x, backend="cuda")
