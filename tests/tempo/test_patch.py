"""The drop-in on Hugging Face models: same numbers, same objects, undone without a trace, and a true report."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperlab.tempo.dropin import patch
from paperlab.tempo.dropin.encoder import encoder_stack, layer_indices
from paperlab.tempo.memory.ledger import retained, retained_bytes
from paperlab.tempo.ops.gelu import InplaceGELU
from paperlab.tempo.ops.layernorm import InplaceLayerNorm

from .tiny_models import FAMILIES, tiny_batch, tiny_model

BAR = 5e-6  # relative error of a gradient in fp32


def step(model: nn.Module, batch: dict[str, Tensor], seed: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one training step with a fixed dropout seed."""
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def worst_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative L2 error over parameters; key biases, whose true gradient is zero, count absolutely."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    return max(
        float((found[name] - reference).norm()) / max(float(reference.norm()), 1e-3 * largest)
        for name, reference in expected.items()
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"packed": True}, {"layers": [1]}, {"python_gelu": True}])
def test_training_matches_the_vanilla_model(family: str, options: dict[str, Any]) -> None:
    vanilla, batch = tiny_model(family), tiny_batch(family)
    model = copy.deepcopy(vanilla)
    patch.apply(model, **options)
    expected_loss, expected = step(vanilla, batch)
    loss, gradients = step(model, batch)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    assert worst_error(gradients, expected) <= BAR
    other_loss, _ = step(model, batch, seed=4)
    assert other_loss != loss  # dropout was on


@pytest.mark.parametrize("family", FAMILIES)
def test_eval_logits_are_bit_identical(family: str) -> None:
    vanilla, batch = tiny_model(family).eval(), tiny_batch(family)
    model = copy.deepcopy(vanilla)
    report = patch.apply(model)
    assert torch.equal(model(**batch).logits, vanilla(**batch).logits)
    assert len(report.replaced("attention")) == 2
    assert len(report.replaced("gelu")) == (0 if family == "gpt2" else 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_patched_models_keep_less(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family)
    before = retained_bytes(model, batch)
    for options in (
        {"layernorm": False, "attention": False, "python_gelu": True},
        {"gelu": False, "attention": False},
    ):
        patch.apply(model, **options)
        assert retained_bytes(model, batch) < before
    patch.apply(model, python_gelu=True)
    assert retained_bytes(model, batch) < 0.75 * before


@pytest.mark.parametrize("family", FAMILIES)
def test_every_conversion_saves_something(family: str) -> None:
    """Converting less than the default never keeps less: what is skipped is skipped rightly."""
    model, batch = tiny_model(family), tiny_batch(family)
    patch.apply(model)
    full = retained_bytes(model, batch)
    for technique in ("gelu", "layernorm", "attention"):
        if patch.report(model).replaced(technique):  # type: ignore[arg-type]
            patch.apply(model, **{technique: False})
            assert retained_bytes(model, batch) > full
            patch.apply(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_revert_leaves_no_trace(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family)
    fresh = copy.deepcopy(model)
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    patch.apply(model)
    step(model, batch)
    patch.revert(model)
    expected_loss, expected = step(fresh, batch)
    loss, gradients = step(model, batch)
    assert torch.equal(loss, expected_loss)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    assert [type(m) for m in model.modules()] == [type(m) for m in fresh.modules()]
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert model.config._attn_implementation == "eager"
    assert patch.report(model).changes == ()
    patch.revert(model)


def test_parameters_modules_and_state_dict_stay_the_same() -> None:
    model = tiny_model("bert")
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    patch.apply(model)
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    assert all(modules[name] is module for name, module in model.named_modules())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    tiny_model("bert").load_state_dict(model.state_dict())


def test_eps_mode_and_hooks_survive() -> None:
    model = tiny_model("bert", layer_norm_eps=0.125).eval()
    norm = model.bert.encoder.layer[0].output.LayerNorm
    calls: list[str] = []
    norm.register_forward_hook(lambda *_: calls.append("before"))
    patch.apply(model)
    assert isinstance(norm, InplaceLayerNorm)
    assert norm.eps == 0.125
    assert not norm.training
    norm.register_forward_hook(lambda *_: calls.append("after"))
    model(**tiny_batch("bert"))
    patch.revert(model)
    model(**tiny_batch("bert"))
    assert calls == ["before", "after"] * 2


def test_optimizers_made_before_and_after_step_alike() -> None:
    results = []
    for early in (True, False):
        model, batch = tiny_model("bert"), tiny_batch("bert")
        with torch.no_grad():
            for index, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
        if early:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            patch.apply(model)
        else:
            patch.apply(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step(model, batch)
        optimizer.step()
        results.append(model.bert.encoder.layer[0].output.LayerNorm.weight.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("layers", [None, [0]])
def test_deepcopy_pickle_and_save_keep_the_patch(layers: list[int] | None) -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model, layers=layers)
    expected_loss, expected = step(model, batch)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        loss, gradients = step(other, batch)
        assert torch.equal(loss, expected_loss)
        assert all(torch.equal(gradients[name], expected[name]) for name in expected)
        assert patch.report(other) == patch.report(model)
        patch.revert(other)
        assert other.config._attn_implementation == "eager"
        assert model.config._attn_implementation.startswith("tempo")


def test_save_pretrained_writes_a_vanilla_model(tmp_path: Any) -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert torch.equal(loaded(**batch).logits, model.eval()(**batch).logits)
    patch.apply(loaded)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_composes(family: str, reentrant: bool) -> None:
    vanilla, batch = tiny_model(family), tiny_batch(family)
    model = copy.deepcopy(vanilla)
    patch.apply(model)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    loss, gradients = step(model, batch)
    expected_loss, expected = step(vanilla, batch)
    assert torch.equal(loss, expected_loss)
    assert worst_error(gradients, expected) <= BAR
    assert retained_bytes(model, batch) < retained_bytes(vanilla, batch) / 2


def test_gradient_accumulation() -> None:
    vanilla = tiny_model("roberta")
    model = copy.deepcopy(vanilla)
    patch.apply(model)
    for other in (vanilla, model):
        torch.manual_seed(0)
        for size in (1, 3):
            other(**tiny_batch("roberta", size)).loss.backward()
    found, expected = ({n: p.grad for n, p in m.named_parameters() if p.grad is not None} for m in (model, vanilla))
    assert worst_error(found, expected) <= BAR


def test_output_attentions_fall_back() -> None:
    vanilla, batch = tiny_model("bert").eval(), tiny_batch("bert")
    model = copy.deepcopy(vanilla)
    patch.apply(model)
    pairs = zip(
        vanilla(**batch, output_attentions=True).attentions,
        model(**batch, output_attentions=True).attentions,
        strict=True,
    )
    assert all(torch.equal(*pair) for pair in pairs)


def test_models_of_one_configuration_stay_apart() -> None:
    first = tiny_model("bert")
    second = type(first)(first.config)
    patch.apply(first)
    assert second.config._attn_implementation == "eager"
    assert not any(isinstance(module, InplaceLayerNorm | InplaceGELU) for module in second.modules())


def test_report_says_what_and_why() -> None:
    model = tiny_model("bert")
    report = patch.apply(model)
    frame = report.frame.set_index("module")
    embedding = frame.loc["bert.embeddings.LayerNorm"]
    assert (embedding.action, embedding.layer) == ("skipped", -1)
    assert "only dropout reads its output" in embedding.reason
    assert "does not keep it" in frame.loc["cls.predictions.transform.transform_act_fn", "reason"]
    assert frame.loc["bert.encoder.layer.1.attention.self"].to_dict() == {
        "technique": "attention",
        "layer": 1,
        "action": "replaced",
        "reason": "was BertSelfAttention",
    }
    assert "layernorm: 5 replaced (was LayerNorm)" in str(report)
    assert str(patch.report(tiny_model("bert"))) == "nothing is patched"


def test_final_norm_beside_embeddings_and_dropout_is_converted() -> None:
    assert "transformer.ln_f" in patch.apply(tiny_model("gpt2")).replaced("layernorm")


def test_embedding_norm_pays_without_dropout() -> None:
    report = patch.apply(tiny_model("bert", hidden_dropout_prob=0.0))
    assert "bert.embeddings.LayerNorm" in report.replaced("layernorm")


def test_sdpa_attention_is_left_alone() -> None:
    model = tiny_model("bert", attention="sdpa")
    report = patch.apply(model)
    assert report.replaced("attention") == []
    assert "'sdpa' keeps no attention map" in str(report)
    assert model.config._attn_implementation == "sdpa"


def test_layers_and_selections_pick_encoder_layers() -> None:
    model = tiny_model("bert", layers=3)
    report = patch.apply(model, gelu=[0, 2], attention=False, layers=range(1, 2))
    assert report.replaced("gelu") == [f"bert.encoder.layer.{i}.intermediate.intermediate_act_fn" for i in (0, 2)]
    assert all(path.startswith("bert.encoder.layer.1.") for path in report.replaced("layernorm"))
    assert report.replaced("attention") == []


def test_partly_converted_attention_runs_the_former_function_elsewhere() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model, gelu=False, layernorm=False, layers=[1])
    vanilla = tiny_model("bert")
    vanilla.load_state_dict(model.state_dict())
    assert worst_error(step(model, batch)[1], step(vanilla, batch)[1]) <= BAR
    table = retained(model, batch)
    attention = table[table.module.str.endswith("attention.self")]
    operators = attention.groupby("layer").operator.agg(set)
    assert "softmax" in operators[0]
    assert "SoftmaxDropoutMatmul" in operators[1]
    assert "softmax" not in operators[1]


def test_applying_again_replaces_the_patch() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model)
    once = retained_bytes(model, batch)
    patch.apply(model)
    assert retained_bytes(model, batch) == once
    report = patch.apply(model, gelu=False, attention=False)
    assert not any(isinstance(module, InplaceGELU) for module in model.modules())
    assert patch.report(model) == report


def test_preview_changes_nothing() -> None:
    model = tiny_model("bert")
    patch.apply(model, attention=False)
    assert len(patch.preview(model).replaced("attention")) == 2
    assert model.config._attn_implementation == "eager"
    assert len(patch.report(model).replaced("gelu")) == 2


def test_reverted_patches_again_after_an_error() -> None:
    model = tiny_model("bert")
    patch.apply(model, packed=True)
    with contextlib.suppress(KeyError), patch.reverted(model):
        assert patch.report(model).changes == ()
        raise KeyError
    assert model.bert.encoder.layer[0].intermediate.intermediate_act_fn.packed


class Plain(nn.Module):
    """Not a Hugging Face model: torch modules, one GELU right before the LayerNorm that reads it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), activation, nn.Linear(8, 8)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_the_stack_is_the_outermost_list() -> None:
    model = Plain(nn.ModuleList([nn.GELU() for _ in range(9)]))
    assert encoder_stack(model) == ("layers", model.layers)
    assert layer_indices(model)["layers.1.2.8"] == 1
    assert encoder_stack(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_any_torch_module_is_converted(form: str) -> None:
    model = Plain(nn.GELU(form))
    vanilla, x = copy.deepcopy(model), torch.randn(5, 8)
    report = patch.apply(model)
    assert (len(report.replaced("layernorm")), len(report.replaced("gelu"))) == (2, 1)  # one shared module
    found, expected = (m(x) for m in (model, vanilla))
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad(y.square().sum(), list(m.parameters())) for y, m in ((found, model), (expected, vanilla))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() <= 2e-4 * theirs.norm()  # the fit's bound near the minimum


@pytest.mark.parametrize(
    ("activation", "python", "converted"),
    [
        ("gelu", False, True),
        ("gelu_pytorch_tanh", False, True),
        ("gelu_new", False, False),
        ("gelu_new", True, True),
        ("gelu_fast", True, True),
        ("gelu_accurate", True, True),
        ("gelu_python", False, False),
        ("gelu_python", True, True),
        ("gelu_python_tanh", True, True),
        ("quick_gelu", True, False),
        ("gelu_10", True, False),
        ("relu", True, False),
    ],
)
def test_activations_are_told_apart(activation: str, python: bool, converted: bool) -> None:
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 401, dtype=torch.float64, requires_grad=True)
    model = nn.Sequential(nn.LayerNorm(401), ACT2FN[activation])
    expected = torch.autograd.grad(ACT2FN[activation](x).sum(), x)[0]
    report = patch.apply(model, python_gelu=python, evaluator="newton")
    assert bool(report.replaced("gelu")) == converted
    assert isinstance(model[1], InplaceGELU) == converted
    found = torch.autograd.grad(model[1](x).sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_subclasses_and_overridden_forwards_are_skipped() -> None:
    class ScaledNorm(nn.LayerNorm):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    overridden = nn.LayerNorm(4)
    overridden.forward = lambda x: x  # type: ignore[method-assign]
    report = patch.apply(nn.Sequential(ScaledNorm(4), overridden, nn.LayerNorm(4)))
    assert report.replaced("layernorm") == ["2"]
    assert [change.reason for change in report.changes[:2]] == [
        "ScaledNorm is not torch's own LayerNorm",
        "its forward is overridden on the instance",
    ]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(2, 2), {}, "Linear has nothing that Tempo converts .no GELU, LayerNorm or attention module"),
        (nn.Sequential(nn.LayerNorm(2)), {"layernorm": False}, "has nothing that Tempo converts"),
        (Plain(nn.GELU()), {"layers": [2]}, r"layers is \[2\]; it must hold encoder layers, 0 to 1 here"),
        (Plain(nn.GELU()), {"gelu": 1.5}, "gelu is 1.5; it must hold encoder layers"),
        (Plain(nn.GELU()), {"evaluator": "guess"}, "guess"),
    ],
)
def test_bad_input_is_named(model: nn.Module, options: dict[str, Any], message: str) -> None:
    classes = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message) as error:
        patch.apply(model, **options)
    assert "\n" not in str(error.value)
    assert [type(module) for module in model.modules()] == classes


def test_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="mask"):
        patch.apply(Plain(nn.GELU()), mask="bit")
