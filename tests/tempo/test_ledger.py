"""The ledger against the closed forms to the byte, on real tensors and on the meta device."""

from __future__ import annotations

import random
import weakref

import pytest
import torch
from torch import Tensor, nn

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.accounting import PLAIN, TEMPO, LayerShape, Techniques, stack_bytes
from paperlab.tempo.memory.accounting import retained_bytes as per_layer
from paperlab.tempo.memory.ledger import KEYS, ledger, retained, retained_bytes
from paperlab.tempo.studies.memory_study import FORMS as ARMS

from .tiny_models import bert_encoder, tiny_batch, tiny_model


def random_shapes(count: int) -> list[tuple[LayerShape, int]]:
    """Shapes (odd S among them) and depths 1 to 4, drawn with a fixed seed."""
    draw = random.Random(2210)
    shapes = []
    for _ in range(count):
        heads = draw.choice([1, 2, 3, 4, 8])
        hidden = heads * draw.choice([4, 8, 20])
        shapes.append((LayerShape(draw.randint(1, 5), draw.randint(1, 70), hidden, heads), draw.randint(1, 4)))
    return shapes


def encoder_bytes(arm: str, shape: LayerShape, layers: int, device: str, dtype: torch.dtype = torch.float32) -> int:
    model, batch = bert_encoder(shape.batch, shape.seq, shape.hidden, shape.heads, layers, device=device)
    baselines.configure(model.to(dtype), arm)
    table = retained(model, batch)
    return int(table.bytes[table.layer >= 0].sum())


@pytest.mark.parametrize("arm", ARMS)
def test_closed_forms_hold_to_the_byte_for_random_shapes(arm: str) -> None:
    era, techniques = ARMS[arm]
    for shape, layers in random_shapes(24):
        assert encoder_bytes(arm, shape, layers, "meta") == stack_bytes(shape, layers, techniques, era), shape


@pytest.mark.parametrize("arm", ARMS)
def test_real_tensors_keep_the_same_bytes(arm: str) -> None:
    era, techniques = ARMS[arm]
    shape = LayerShape(3, 13, 24, 3)
    assert encoder_bytes(arm, shape, 2, "cpu") == stack_bytes(shape, 2, techniques, era)


@pytest.mark.parametrize("arm", ["eager, modern", "eager, paper era", "Tempo"])
def test_half_precision(arm: str) -> None:
    era, techniques = ARMS[arm]
    shape = LayerShape(2, 40, 32, 4, element_bytes=2)
    assert encoder_bytes(arm, shape, 2, "meta", torch.bfloat16) == stack_bytes(shape, 2, techniques, era)


@pytest.mark.parametrize(("arm", "gib"), [("eager, modern", 51.756), ("Tempo", 32.315)])
def test_bert_large_on_the_meta_device(arm: str, gib: float) -> None:
    shape = LayerShape(32, 512, 1024, 16)
    found = encoder_bytes(arm, shape, 24, "meta")
    assert found == stack_bytes(shape, 24, ARMS[arm][1])
    assert found / 2**30 == pytest.approx(gib, abs=5.1e-4)


def test_cpu_dropout_keeps_a_float_tensor() -> None:
    """The trap of the CPU: 72 BSH + 12 BAS² where a GPU keeps 66 BSH + 9 BAS²."""
    shape = LayerShape(2, 16, 32, 4)
    statistics = 16 * shape.rows
    expected = 72 * shape.bsh + 12 * shape.bas2 + statistics
    assert encoder_bytes("eager, torch as it is", shape, 1, "cpu") == expected


def test_sdpa_keeps_no_attention_map() -> None:
    shape = LayerShape(2, 64, 32, 4)
    philox_state = 2 * 8  # seed and offset of the kernel's dropout, per layer
    for arm, techniques in [
        ("SDPA", Techniques(attention="sdpa")),
        ("Tempo on SDPA", Techniques(attention="sdpa", gelu=True, layernorm=True)),
    ]:
        expected = stack_bytes(shape, 2, techniques) + 2 * philox_state
        assert encoder_bytes(arm, shape, 2, "meta") == expected


@pytest.mark.parametrize(
    ("arm", "techniques"),
    [
        ("eager, modern", Techniques(python_gelu=True)),
        ("eager, fused GELU", PLAIN),
        ("GELU", Techniques(gelu=True)),
        ("Tempo", TEMPO),
    ],
)
def test_gpt2_with_python_and_fused_gelu(arm: str, techniques: Techniques) -> None:
    model = baselines.configure(meta_copy(tiny_model("gpt2")), arm)
    batch = {name: tensor.to("meta") for name, tensor in tiny_batch("gpt2").items()}
    table = retained(model, batch)
    # the LayerNorm after the last layer lies outside of the stack, so the stack has no boundary of its own
    assert table.bytes[table.layer >= 0].sum() == 2 * per_layer(LayerShape(2, 16, 32, 4), techniques)


def test_toggling_one_layer_changes_that_layer_alone() -> None:
    shape = LayerShape(2, 24, 32, 4)
    model, batch = bert_encoder(2, 24, 32, 4, 3)
    baselines.configure(model, "eager, modern")
    patch.apply(model, layernorm=False, layers=[1])
    by_layer = ledger(model, batch).groupby("layer")[["bytes", "baseline_bytes"]].sum()
    assert list(by_layer.bytes[[0, 2]]) == list(by_layer.baseline_bytes[[0, 2]])
    saved = by_layer.baseline_bytes[1] - by_layer.bytes[1]
    assert saved == 12 * shape.bsh + 4 * shape.bas2


def test_baseline_is_the_model_without_its_patch() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    before = retained_bytes(model, batch)
    report = patch.apply(model)
    table = ledger(model, batch)
    assert table.baseline_bytes.sum() == before
    assert table.bytes.sum() == retained_bytes(model, batch) < before
    assert patch.report(model) == report
    assert not table.duplicated(KEYS).any()
    assert list(table.columns) == ["layer", "operator", "module", "bytes", "baseline_bytes"]


@pytest.mark.parametrize("layers", [None, [0]])
def test_ledger_as_on_gpu_needs_no_gpu(layers: list[int] | None) -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model, layers=layers)
    table = ledger(model, batch, as_on_gpu=True)
    by_layer = table[table.layer >= 0].groupby("layer")[["bytes", "baseline_bytes"]].sum()
    shape = LayerShape(2, 16, 32, 4)
    assert (by_layer.baseline_bytes == per_layer(shape)).all()
    assert by_layer.bytes.sum() == sum(
        per_layer(shape, TEMPO if layers is None or layer in layers else PLAIN) for layer in range(2)
    ) + (4 * shape.bsh if layers is None else 0)
    assert patch.report(model).replaced("attention")
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_rows_name_layer_module_and_operator() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    patch.apply(model)
    ours = ledger(model, batch).set_index("module")
    activation = ours.loc["bert.encoder.layer.1.intermediate.intermediate_act_fn"].set_index("operator")
    assert activation.loc["InplaceGELU", "layer"] == 1
    assert activation.loc["gelu", "baseline_bytes"] == 2 * 16 * 128 * 4
    assert ours.loc["bert.embeddings.LayerNorm", "layer"] == -1


@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
def test_inference_keeps_nothing(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family)
    patch.apply(model)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert retained_bytes(model.eval(), batch) == 0


class Views(nn.Module):
    """Keeps one storage through several views, a parameter, and part of a larger storage."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        large = x * self.weight  # keeps x
        half = large[:2]
        return (half * half.T.T).sum() + (half.sin() * self.weight).sum()  # keeps `large` once, half.sin()


def test_storages_count_once_and_whole() -> None:
    table = retained(Views(), (torch.randn(4, 6),))
    assert sorted(table.bytes) == [2 * 6 * 4, 4 * 6 * 4, 4 * 6 * 4]


def test_nothing_outlives_the_ledger() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    seen: list[weakref.ref[torch.UntypedStorage]] = []
    hook = model.bert.encoder.layer[0].intermediate.register_forward_hook(
        lambda module, inputs, output: seen.append(weakref.ref(output.untyped_storage()))
    )
    retained(model, batch)
    hook.remove()
    assert seen[0]() is None


def test_compiled_models_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    with pytest.raises(ValueError, match="is compiled"):
        retained(torch.compile(model, backend="eager"), (torch.ones(1, 2),))
    model.compile(backend="eager")
    with pytest.raises(ValueError, match="is compiled"):
        retained(model, (torch.ones(1, 2),))


def test_hooks_are_gone_afterwards() -> None:
    hooks = nn.modules.module
    before = len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)
    with pytest.raises(TypeError):
        retained(nn.Linear(2, 2), {"wrong": torch.ones(1, 2)})
    assert (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)) == before
