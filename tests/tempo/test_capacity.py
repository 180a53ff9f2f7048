"""The capacity model against direct measurement, the published table, and its own monotony."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForQuestionAnswering

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.capacity import (
    CARDS,
    README_ROWS,
    capacity,
    compare_with_readme,
    largest,
    max_batch,
    step_bytes,
    synthetic_batch,
)

from .tiny_models import FAMILIES, tiny_model

MIB = 2**20
ARMS = ("eager, paper era", "eager, modern", "Tempo", "Tempo on SDPA", "checkpoint")


@pytest.mark.parametrize("limit", range(12))
@pytest.mark.parametrize("guess", [-3, 1, 2, 5, 11, 12, 40])
def test_bisection_agrees_with_counting_and_probes_once(limit: int, guess: int) -> None:
    probed: list[int] = []

    def fits(batch: int) -> bool:
        probed.append(batch)
        return batch <= limit

    assert largest(fits, guess) == limit
    assert len(probed) == len(set(probed))
    assert limit + 1 in probed
    assert limit in probed or limit == 0
    assert min(probed) >= 1


def test_a_right_guess_takes_two_probes() -> None:
    probed: list[int] = []
    assert largest(lambda batch: probed.append(batch) or batch <= 37, 37) == 37  # type: ignore[func-returns-value]
    assert sorted(probed) == [37, 38]


@pytest.mark.parametrize("arm", ARMS)
def test_largest_batch_fits_and_the_next_does_not(arm: str) -> None:
    model = tiny_model("bert")
    found = capacity(model, 6 * MIB, 32, arm, reserve_bytes=MIB)
    twin = baselines.configure(meta_copy(model), arm)
    needed = [step_bytes(twin, synthetic_batch(twin, found.batch + extra, 32)) for extra in (0, 1)]
    parameters = sum(p.numel() for p in model.parameters())
    room = 5 * MIB - 16 * parameters - sum(b.nbytes for b in model.buffers())
    assert needed[0] <= room < needed[1]
    assert found.step_bytes == needed[0]
    assert found.free_bytes == room - needed[0]


def test_order_of_arms_and_growth_with_the_cap() -> None:
    model = tiny_model("bert", layers=5)
    by_arm = {arm: max_batch(model, 24 * MIB, 64, arm, reserve_bytes=0) for arm in ARMS}
    assert list(by_arm.values()) == sorted(by_arm.values())
    assert by_arm["eager, paper era"] < by_arm["Tempo"]
    by_cap = [max_batch(model, cap * MIB, 64, reserve_bytes=0) for cap in (3, 6, 12, 24)]
    assert by_cap == sorted(set(by_cap))


def test_the_model_is_taken_as_it_is_configured_and_left_alone() -> None:
    model = tiny_model("bert")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = max_batch(model, 8 * MIB, 64, reserve_bytes=0)
    assert plain == max_batch(model, 8 * MIB, 64, "eager, modern", reserve_bytes=0)
    patch.apply(model)
    assert max_batch(model, 8 * MIB, 64, reserve_bytes=0) > plain
    assert max_batch(model, 8 * MIB, 64, "eager, modern", reserve_bytes=0) == plain
    assert len(patch.report(model).replaced("gelu")) == 2
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_capacity(family: str) -> None:
    model = tiny_model(family)
    eager, tempo = (max_batch(model, 8 * MIB, 17, arm, reserve_bytes=0) for arm in ("eager, modern", "Tempo"))
    assert tempo > eager > 0


def test_a_configuration_stands_for_its_language_model() -> None:
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=61
    )
    assert max_batch(config, 8 * MIB, 32, reserve_bytes=0) > 0


def test_half_precision_holds_about_twice_the_batch() -> None:
    model = tiny_model("bert")
    single, half = (max_batch(model, 32 * MIB, 64, reserve_bytes=0, dtype=dtype) for dtype in (None, torch.float16))
    assert half == pytest.approx(2 * single, rel=0.15)


def test_bert_large_on_the_papers_smallest_card() -> None:
    """The one row that the paper's GPUs and today's framework must agree on within a batch of one."""
    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):
        bert = BertForQuestionAnswering(BertConfig(**shape))
    card = CARDS["RTX 2080 Ti"]
    published = README_ROWS[(README_ROWS.card == card.name) & (README_ROWS.dtype == "float32")]
    for row in published.itertuples():
        found = max_batch(bert, card.memory_bytes, 384, row.arm, reserve_bytes=card.reserve_bytes)
        assert abs(found - row.published_batch) <= 1


@pytest.mark.slow
def test_published_ratios() -> None:
    table = compare_with_readme()
    tempo = table[table.arm == "Tempo"]
    assert (tempo.model_ratio > 1.3).all()
    assert ((tempo.model_ratio / tempo.published_ratio - 1).abs() < 0.2).all()


def test_a_cap_below_the_model_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"memory_bytes is 1e\+05; the model's training state and the reserve"
    ) as error:
        max_batch(tiny_model("bert"), 1e5, 16)
    assert "\n" not in str(error.value)


def test_no_batch_at_all_is_zero() -> None:
    model = tiny_model("bert")
    state = 16 * sum(p.numel() for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    found = capacity(model, state + 1000, 64, reserve_bytes=0)
    assert (found.batch, found.step_bytes) == (0, 0)


def test_bad_sequence_length_is_named() -> None:
    with pytest.raises(ValueError, match="seq_len is 513; the model has positions for 1 to 512 tokens"):
        max_batch(tiny_model("bert"), 1e9, 513)


def test_synthetic_batches_train_every_family() -> None:
    for family in FAMILIES:
        model = tiny_model(family)
        batch = synthetic_batch(model, 2, 16, "cpu")
        assert model(**batch).logits.shape[0] == 2
    assert isinstance(model(**synthetic_batch(model, 2, 16, "cpu")).logits, torch.Tensor)
    assert "labels" in synthetic_batch(BertForMaskedLM(BertConfig(num_hidden_layers=1)), 1, 4)
