"""What every operator of Tempo owes autograd and its users, whatever it computes."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from paperlab.tempo.ops.attention import softmax_dropout_matmul
from paperlab.tempo.ops.gelu import InplaceGELU, inplace_gelu
from paperlab.tempo.ops.layernorm import InplaceLayerNorm, inplace_layer_norm
from tests.tempo.kept import kept_bytes


@dataclass
class Operator:
    """An operator on leaves; `kept` are the indices of leaves, or "out", that it keeps for backward."""

    function: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    kept: tuple[int | str, ...]
    zeros: tuple[int, ...] = ()
    fullgraph: bool = True

    def leaves(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        torch.manual_seed(17)
        leaves = [torch.randn(shape).to(dtype) for shape in self.shapes]
        for index in self.zeros:
            leaves[1][index] = 0.0
        return [leaf.requires_grad_() for leaf in leaves]

    def run(self, leaves: list[Tensor]) -> Tensor:
        torch.manual_seed(23)
        return self.function(*leaves)


def _attention(mask_mode: Any) -> Operator:
    def function(scores: Tensor, value: Tensor) -> Tensor:
        return softmax_dropout_matmul(scores, value, 0.3, mask_mode=mask_mode)

    return Operator(function, ((2, 4, 6), (2, 6, 3)), kept=(1,), fullgraph=mask_mode != "philox")


def _layer_norm(zeros: tuple[int, ...] = (), **options: Any) -> Operator:
    def function(*leaves: Tensor) -> Tensor:
        return inplace_layer_norm(*leaves, **options)

    return Operator(function, ((4, 6), (6,), (6,)), kept=("out", 1, 2), zeros=zeros, fullgraph=False)


OPERATORS = {
    "gelu": Operator(inplace_gelu, ((4, 6),), kept=("out",)),
    "gelu tanh packed": Operator(lambda x: inplace_gelu(x, "tanh", packed=True), ((4, 6),), kept=("out",)),
    "layer norm": _layer_norm(),
    "layer norm with lost channels": _layer_norm(zeros=(1, 4)),
    "layer norm emitting bf16": _layer_norm(out_dtype=torch.bfloat16),
    **{f"attention {mode}": _attention(mode) for mode in ("byte", "bit", "sign", "philox")},
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def gradients(operator: Operator, leaves: list[Tensor], dy: Tensor | None = None) -> list[Tensor]:
    out = operator.run(leaves)
    return list(torch.autograd.grad(out, leaves, torch.ones_like(out) if dy is None else dy))


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    """Up to the order of sums, which follows the layout."""
    return all(torch.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(a, b, strict=True))


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_operator
def test_double_backward_is_a_clear_error(operator):
    leaves = operator.leaves()
    first = torch.autograd.grad(operator.run(leaves).float().square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once"):
        first[0].sum().backward()


@every_operator
def test_mutating_what_is_kept_raises(operator):
    for index in operator.kept:
        leaves = operator.leaves()
        out = operator.run(leaves)
        with torch.no_grad():
            (out if index == "out" else leaves[index]).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@every_operator
def test_an_inplace_residual_or_dropout_on_the_output_raises(operator):
    if "out" not in operator.kept:
        pytest.skip("the output is not kept")
    for mutate in (lambda y: y.add_(1), lambda y: nn.functional.dropout(y, 0.5, inplace=True)):
        out = mutate(operator.run(operator.leaves()))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@every_operator
def test_the_input_dies_before_backward(operator):
    leaves = operator.leaves()
    temporary = leaves[0] * 1
    out = operator.run([temporary, *leaves[1:]])
    alive = weakref.ref(temporary)
    del temporary
    assert alive() is None
    out.sum().backward()
    assert leaves[0].grad is not None


@every_operator
def test_nothing_is_kept_without_gradients(operator):
    leaves = operator.leaves()
    trained = operator.run(leaves)
    with torch.no_grad():
        assert kept_bytes(lambda: operator.run(leaves)) == []
        assert torch.equal(operator.run(leaves), trained)
    with torch.inference_mode():
        assert torch.equal(operator.run([leaf.detach() for leaf in leaves]), trained)
    assert kept_bytes(lambda: operator.run([leaf.detach() for leaf in leaves])) == []


@every_operator
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint_replays_the_same_gradients(operator, use_reentrant):
    reference = gradients(operator, operator.leaves())
    leaves = operator.leaves()
    torch.manual_seed(23)
    out = checkpoint(operator.function, *leaves, use_reentrant=use_reentrant)
    out.backward(torch.ones_like(out))
    assert equal([leaf.grad for leaf in leaves], reference)


@every_operator
def test_gradients_accumulate_and_pass_hooks(operator):
    leaves = operator.leaves()
    seen = []
    for leaf in leaves:
        leaf.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.shape))  # as DDP does
    for _ in range(2):
        operator.run(leaves).sum().backward()
    assert seen.count(leaves[0].shape) >= 2
    assert equal([leaf.grad for leaf in leaves], [2 * g for g in gradients(operator, operator.leaves())])


@every_operator
def test_any_layout_of_the_gradient_and_any_subset_of_leaves(operator):
    leaves = operator.leaves()
    reference = gradients(operator, leaves)
    expanded = torch.ones((), dtype=operator.run(leaves).dtype).expand_as(operator.run(leaves))
    assert close(gradients(operator, leaves, expanded), reference)
    strided = torch.ones_like(operator.run(leaves)).mT.contiguous().mT
    assert close(gradients(operator, leaves, strided), reference)
    for index in range(len(leaves)):
        only = [leaf.detach().requires_grad_(i == index) for i, leaf in enumerate(leaves)]
        operator.run(only).sum().backward()
        assert close([only[index].grad], [reference[index]])
        assert all(leaf.grad is None for i, leaf in enumerate(only) if i != index)


@every_operator
def test_noncontiguous_inputs(operator):
    leaves = operator.leaves()
    strided = [leaf.detach().mT.contiguous().mT if leaf.dim() > 1 else leaf.detach() for leaf in leaves]
    strided = [leaf.requires_grad_() for leaf in strided]
    assert close([operator.run(strided)], [operator.run(leaves)])
    assert close(gradients(operator, strided), gradients(operator, leaves))


@every_operator
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_under_torch_compile(operator):
    """Traced up to code generation, where dropout still draws from torch's own generator.

    In-place LayerNorm breaks the graph to look at gamma, "philox" to seed a generator; the others do not.
    """
    compiled = torch.compile(operator.function, backend="aot_eager", fullgraph=operator.fullgraph)
    results = []
    for function in (operator.function, compiled):
        leaves = operator.leaves()
        torch.manual_seed(23)
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
    assert close(*results)
    torch.compiler.reset()


def block() -> nn.Module:
    torch.manual_seed(1)
    norm = InplaceLayerNorm(6)
    with torch.no_grad():
        norm.weight[2] = 0.0
    return nn.Sequential(nn.Linear(6, 6), norm, nn.Linear(6, 12), InplaceGELU(), nn.Linear(12, 6))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_modules_copy_and_pickle(copied):
    model, x = block(), torch.randn(5, 6)
    model(x).sum().backward()
    twin = copied(model)
    twin.zero_grad()
    twin(x).sum().backward()
    assert twin[1].fallbacks == model[1].fallbacks == 1
    assert equal([p.grad for p in twin.parameters()], [p.grad for p in model.parameters()])


def test_state_dict_round_trip_with_the_vanilla_model():
    vanilla = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
    model = block()
    assert list(model.state_dict()) == list(vanilla.state_dict())
    vanilla.load_state_dict(model.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(model(x), vanilla(x))
    model.load_state_dict(vanilla.state_dict())
    assert equal(list(model.state_dict().values()), list(vanilla.state_dict().values()))


def test_training_step_under_autocast_and_gradient_scaling():
    """A GradScaler multiplies the loss by 2**16 here; gradients in fp32 parameters stay finite and right."""
    model, x = block(), torch.randn(5, 6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaled = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        model(x).float().square().mean().backward()
    for ours, reference in zip(scaled, [p.grad for p in model.parameters()], strict=True):
        assert torch.allclose(ours, reference, rtol=1e-6, atol=1e-7)
