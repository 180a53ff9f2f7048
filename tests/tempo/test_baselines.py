"""Baselines: the same numbers as the framework's own, with the memory their labels say."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.accounting import PLAIN, TEMPO, LayerShape, retained_bytes
from paperlab.tempo.memory.compiled import compiled_bytes

from .tiny_models import bert_encoder, tiny_batch, tiny_model

SAME_FUNCTION = ("eager, modern", "eager, paper era", "checkpoint")


def logits_and_gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    output = model(**batch)
    output.loss.backward()
    return [output.logits, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_native_dropout_is_dropout(p: float, training: bool) -> None:
    x = torch.randn(5, 7)
    results = []
    for dropout in (F.dropout, baselines.native_dropout):
        torch.manual_seed(11)
        results.append((dropout(x, p, training), torch.rand(1)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_era_softmax_is_softmax_and_keeps_its_input() -> None:
    kept: list[int] = []
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        probabilities = baselines.era_softmax(scores)
    assert kept == [scores.nbytes, scores.nbytes]
    assert torch.equal(probabilities, scores.softmax(-1))
    assert torch.autograd.gradcheck(baselines.era_softmax, (scores,))


@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
@pytest.mark.parametrize("arm", SAME_FUNCTION)
def test_arms_of_the_same_function_are_bit_equal_in_training(family: str, arm: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family)
    expected = logits_and_gradients(copy.deepcopy(model), batch)
    found = logits_and_gradients(baselines.configure(model, arm), batch)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("arm", baselines.ARMS)
def test_every_arm_runs_and_agrees_in_eval(arm: str) -> None:
    model, batch = tiny_model("gpt2"), tiny_batch("gpt2")
    expected = copy.deepcopy(model).eval()(**batch).logits
    torch.testing.assert_close(baselines.configure(model, arm).eval()(**batch).logits, expected)


def test_arms_do_not_leak_into_models_of_the_same_configuration() -> None:
    first, second = tiny_model("bert"), tiny_model("bert")
    second.config = first.config
    for module in second.modules():
        if hasattr(module, "config"):
            module.config = first.config
    baselines.configure(first, "eager, paper era")
    assert first.config._attn_implementation == "eager_era"
    assert second.config._attn_implementation == "eager"


def test_fused_gelu_tells_python_from_fused() -> None:
    model = tiny_model("gpt2")
    baselines.use_fused_gelu(model)
    x = torch.linspace(-4, 4, 33)
    assert torch.equal(model.transformer.h[0].mlp.act(x), F.gelu(x, approximate="tanh"))


def test_gpu_accounting_covers_a_partly_converted_model() -> None:
    model = tiny_model("bert")
    patch.apply(model, layers=[0])
    baselines.as_on_gpu(model)
    choices = [layer.attention.self._tempo_attention for layer in model.bert.encoder.layer]
    assert choices == ["tempo", "eager_native"]
    patch.revert(model)
    assert model.config._attn_implementation == "eager_native"


def test_unknown_arm_is_named() -> None:
    with pytest.raises(ValueError, match=r"arm is 'eager'; it must be one of .*Tempo on SDPA"):
        baselines.configure(tiny_model("bert"), "eager")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inductor's own imports
def test_compiler_keeps_less_under_a_smaller_budget() -> None:
    model, batch = bert_encoder(8, 128, 32, 4)
    baselines.configure(model, "eager, torch as it is")
    kept = [compiled_bytes(model, batch, budget) for budget in (1.0, 0.5, 0.2, 0.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 0 < kept[1] < kept[0]
    shape = LayerShape(8, 128, 32, 4)
    assert kept[1] < retained_bytes(shape, PLAIN)
    assert kept[2] < retained_bytes(shape, TEMPO)
    with pytest.raises(ValueError, match="budget is 2"):
        compiled_bytes(model, batch, 2)


def test_meta_copy_keeps_everything_but_the_values() -> None:
    model = tiny_model("bert").eval()
    twin = meta_copy(model)
    assert all(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers()))
    assert twin.cls.predictions.decoder.weight is twin.bert.embeddings.word_embeddings.weight
    assert not twin.training
    assert not any(tensor.is_meta for tensor in model.parameters())
