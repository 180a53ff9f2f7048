"""Every policy, block size, budget, arrival order and pre-emption yields the tokens of Hugging Face's `generate`."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paperlab.serving import LLM, Limits, make_policy
from tests.serving import doubles
from tests.serving.engine import tiny

POLICIES = doubles.one_device_policies()
PREEMPTING = [name for name in POLICIES if not name.startswith("static-")]  # those keep 64 tokens free per sequence
# Block size, blocks and token budget: ample memory, and pools that hold little more than the longest request.
ROOMY, TIGHT = ((1, 200, 7), (7, 40, 64), (16, 20, 1)), ((1, 54, 9), (7, 8, 64), (16, 4, 3))


def llm(folder, policy, sizes, **options):
    block_size, blocks, budget = sizes
    # SGLang's reserve for tokens to come would spare these small pools the pre-emptions that are wanted here.
    reserve = {"ahead_tokens": 1} if policy.startswith("sglang") else {}
    chosen = make_policy(policy, limits=Limits(budget, 4), **reserve)
    return LLM(folder, chosen, block_size=block_size, kv_blocks=blocks, dtype=torch.float64, **options)


def assert_equal_to_hugging_face(engine, family, arrival_s=None):
    found = engine.generate(tiny.prompts(), tiny.OUTPUT_LENGTHS, arrival_s=arrival_s)
    assert [list(item.tokens) for item in found] == tiny.expected(family)
    assert {item.finish_reason for item in found} == {"length"}


@pytest.fixture(autouse=True)
def _without_their_generate(monkeypatch):
    """The expectations are there first; then nobody may call it."""
    for family in tiny.FAMILIES:
        tiny.expected(family)
    tiny.expected("llama", tiny.SHORT, (40,) * len(tiny.SHORT))

    def refuse(*args, **kwargs):
        raise AssertionError("the engine called transformers' generate")

    monkeypatch.setattr("transformers.generation.utils.GenerationMixin.generate", refuse)


@pytest.mark.parametrize("sizes", ROOMY + TIGHT)
@pytest.mark.parametrize("policy", POLICIES)
def test_tokens_equal_under_every_policy(folders, checked, policy, sizes):
    family = sorted(tiny.FAMILIES)[POLICIES.index(policy) % 3]
    assert_equal_to_hugging_face(llm(folders[family], policy, sizes), family)
    assert checked["finish"] > 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("budget", [1, 2, 5, 16, 63, 64])
def test_tokens_equal_for_every_chunk_size(folders, checked, family, budget):
    engine = llm(folders[family], "vllm-like", (7, 30, budget))
    assert_equal_to_hugging_face(engine, family)
    assert max(step.shape.tokens for step in engine.log.steps) <= budget
    assert budget < 16 or any(step.shape.kind == "mixed" for step in engine.log.steps)


@pytest.mark.parametrize("policy", ["vllm-like", "nexus", "sglang-like", "fastserve-like"])
@pytest.mark.parametrize("seed", range(3))
def test_tokens_equal_for_every_arrival_order(folders, checked, policy, seed):
    order = random.Random(seed).sample(range(5), 5)
    engine = llm(folders["llama"], policy, (7, 10, 16))
    assert_equal_to_hugging_face(engine, "llama", arrival_s=[0.004 * place for place in order])
    arrived = [note.request_id for note in engine.log.notes if note.kind == "arrive"]
    assert [order[request] for request in arrived] == list(range(5))


@pytest.mark.parametrize("policy", PREEMPTING)
def test_tokens_equal_after_forced_preemption(folders, checked, policy):
    """Short prompts all fit, their long answers do not: some must give way, by recomputation or by swap."""
    engine = llm(folders["llama"], policy, (7, 9, 16))
    found = engine.generate(tiny.prompts(tiny.SHORT), 40)
    assert [list(item.tokens) for item in found] == tiny.expected("llama", tiny.SHORT, (40,) * len(tiny.SHORT))
    swapped = {(move.source, move.target) for move in engine.log.moves if "host" in move[4:6]}
    assert checked["preempt"] > 0 or swapped == {("gpu0", "host"), ("host", "gpu0")}
    assert swapped if policy == "fastserve-like" else checked["preempt"]


def test_a_full_host_leaves_recomputation(folders, checked):
    engine = llm(folders["llama"], "fastserve-like", (7, 9, 16), host_blocks=2)
    found = engine.generate(tiny.prompts(tiny.SHORT), 40)
    assert [list(item.tokens) for item in found] == tiny.expected("llama", tiny.SHORT, (40,) * len(tiny.SHORT))
    assert checked["preempt"] > 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_tokens_equal_after_a_transfer_to_another_pool(folders, checked, family):
    engine = llm(folders[family], "vllm-pd-like", (16, 20, 16))
    assert_equal_to_hugging_face(engine, family)
    assert sum(len(move.requests) for move in engine.log.moves) == sum(length > 1 for length in tiny.OUTPUT_LENGTHS)


def test_blocks_of_a_sequence_are_scattered(folders, monkeypatch):
    """The tokens are equal although the pages lie apart: nothing keeps a sequence in one piece."""
    from paperlab.serving.engine import runner

    tables, original = [], runner.flatten

    def spy(chunks, *args):
        tables.extend(list(chunk.sequence.blocks) for chunk in chunks)
        return original(chunks, *args)

    monkeypatch.setattr(runner, "flatten", spy)
    assert_equal_to_hugging_face(llm(folders["llama"], "vllm-like", (7, 9, 9)), "llama")
    assert any(sorted(t) != list(range(min(t), min(t) + len(t))) for t in tables)
    assert any(t != sorted(t) for t in tables)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=st.sampled_from(POLICIES),
    block_size=st.sampled_from([1, 3, 7, 16]),
    kv_tokens=st.integers(64, 300),
    budget=st.integers(1, 64),
    order=st.permutations(range(5)),
)
def test_tokens_equal_under_any_schedule(folders, checked, policy, block_size, kv_tokens, budget, order):
    engine = llm(folders["llama"], policy, (block_size, -(-kv_tokens // block_size), budget))
    assert_equal_to_hugging_face(engine, "llama", arrival_s=[0.002 * place for place in order])
