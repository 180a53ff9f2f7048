"""Every re-sharding gives the tokens of Hugging Face, whatever cycle, layout or model might break it."""

from dataclasses import replace

import pytest
import torch
import transformers as hf

from paperlab.seesaw.engine import ReshardingEngine
from paperlab.serving import Limits
from tests.seesaw.engine.oracle import (
    NEW_TOKENS,
    PAIRS,
    RAGGED,
    decoder,
    engine,
    hugging_face,
    prompts,
    tokens,
)  # fmt: skip
from tests.seesaw.small import TINY
from tests.transformer.hugging_face import config

ONE_KV_HEAD = replace(TINY, name="one kv head", kv_heads=1)
TIED = replace(TINY, name="tied", tied_embeddings=True, vocab=97)
QWEN2 = replace(TINY, name="qwen2", qkv_bias=True)
QWEN3 = replace(TINY, name="qwen3", qk_norm=True)


def check(pool, prefill, decode, shape=TINY, least_cycles=2, **options):
    """Serve ragged prompts with a host tier that is too small for them at once, and compare all tokens."""
    options = {"host_blocks": 5, "prefetch_in_prefill": False, **options}
    with engine(pool, prefill, decode, shape, **options) as made:
        done = made.generate(prompts(RAGGED, shape.vocab), NEW_TOKENS)
        log = made.log
    assert tokens(done) == hugging_face(shape)
    turns = [note.detail for note in log.notes if note.kind == "phase"]
    if prefill != decode:
        assert len(turns) == len(log.switches)
        assert len(turns) + 1 >= 2 * least_cycles
        assert {(item.source, item.target) for item in log.switches} == {(prefill, decode), (decode, prefill)}
    return log


@pytest.mark.parametrize(("prefill", "decode"), PAIRS[2])
def test_two_ranks(two, prefill, decode):
    check(two, prefill, decode)


@pytest.mark.parametrize(
    ("shape", "prefill", "decode"),
    [(ONE_KV_HEAD, "P2", "T2"), (TIED, "T2", "P2"), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (ONE_KV_HEAD, "T2", "P2"), (TIED, "P2", "T2"), (QWEN2, "P2", "T2"), (QWEN3, "T2", "P2")))],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_other_models_on_two_ranks(two, shape, prefill, decode):
    check(two, prefill, decode, shape)


def test_four_ranks_with_replicated_heads_and_uneven_stages(four):
    check(four, "P4", "T4")


@pytest.mark.slow
@pytest.mark.parametrize(("prefill", "decode"), [pair for pair in PAIRS[4] if pair != ("P4", "T4")])
def test_four_ranks(four, prefill, decode):
    check(four, prefill, decode)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [ONE_KV_HEAD, TIED, QWEN2, QWEN3], ids=lambda shape: shape.name)
@pytest.mark.parametrize(("prefill", "decode"), [("P4", "T4"), ("T2P2", "T4"), ("T4", "T2P2")])
def test_other_models_on_four_ranks(four, shape, prefill, decode):
    check(four, prefill, decode, shape)


def test_two_replicas_share_the_prompts(four):
    with engine(four, "D2P2", "D2T2", host_blocks=5, prefetch_in_prefill=False) as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)
        devices = {switch.lane.partition(".")[0] for switch in made.log.switches}
    assert devices == {"gpu0", "gpu1"}


def test_sequences_stay_on_the_device_through_a_prefill_phase(two):
    log = check(two, "P2", "T2", host_blocks=5)
    backs = [switch for switch in log.switches if switch.target == "P2"]
    finished = {note.request_id: note.time_s for note in log.notes if note.kind == "finish"}
    computed = [request for step in log.steps if step.target for request in step.requests]
    assert len(computed) == len(set(computed)) == len(RAGGED)  # no prompt was computed twice
    for back in backs:
        resident = {
            r for move in log.moves if move.end_s < back.start_s for r in move.requests if move.target == "gpu0"
        }
        assert any(finished[request] > back.end_s for request in resident)


def test_growing_sequences_are_sent_back_to_the_host_and_return(two):
    with engine(two, "P2", "T2", host_blocks=30, device_blocks=6) as made:
        lengths = (30,) * 3
        done = made.generate(prompts(lengths), 24)
        moves = made.log.moves
        computed = [request for step in made.log.steps if step.target for request in step.requests]
    assert tokens(done) == hugging_face(TINY, lengths, 24)
    assert any(move.target == "host0" for move in moves)
    assert len(computed) == len(lengths)  # nothing was computed anew


def test_where_neither_tier_has_room_sequences_are_computed_anew(two):
    lengths = (15,) * 5
    with engine(two, "P2", "T2", host_blocks=3, device_blocks=4) as made:
        done = made.generate(prompts(lengths), 20)
        notes = [note.kind for note in made.log.notes]
        computed = [request for step in made.log.steps if step.target for request in step.requests]
    assert tokens(done) == hugging_face(TINY, lengths, 20)
    assert notes.count("finish") == len(lengths)
    assert len(computed) == len(lengths) + notes.count("preempt") > len(lengths)


@pytest.mark.parametrize(
    "policy", ["reshard-prefill-first", pytest.param("reshard-decode-first", marks=pytest.mark.slow)]
)
def test_other_schedulers(two, policy):
    with engine(two, "P2", "T2", policy=policy, device_blocks=16) as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)


@pytest.mark.parametrize(
    ("layout", "policy", "budget"),
    [("P2", "static-chunked", 24), ("T2", "static-prefill-first", 64),
     pytest.param("P2", "static-prefill-first", 64, marks=pytest.mark.slow),
     pytest.param("T2", "static-chunked", 24, marks=pytest.mark.slow)],
)  # fmt: skip
def test_static_layouts(two, layout, policy, budget):
    with engine(two, layout, layout, policy=policy, limits=Limits(budget, 8)) as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)
        kinds = {step.shape.kind for step in made.log.steps}
        assert not made.log.switches
        assert not made.log.moves
    assert ("mixed" in kinds) == (policy == "static-chunked")


def test_one_token_is_done_with_the_prompt(two):
    with engine(two, "P2", "T2") as made:
        done = made.generate(prompts(), 1)
        assert not made.log.switches
        assert made.trace().counts()["kv_in_bytes"].sum() == 0
    assert tokens(done) == tuple(expected[:1] for expected in hugging_face(TINY))


def test_lengths_differ_and_runs_follow_each_other(two):
    lengths = [1, 12, 3, 7, 12, 1, 5, 2]
    expected = tuple(whole[:n] for whole, n in zip(hugging_face(TINY), lengths, strict=True))
    with engine(two, "P2", "T2", host_blocks=5) as made:
        assert tokens(made.generate(prompts(), lengths)) == expected
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)


def test_a_stop_token_ends_a_text(two):
    stop = hugging_face(TINY)[1][4]
    with engine(two, "P2", "T2") as made:
        made.stop_tokens = (stop,)
        done = made.generate(prompts(), NEW_TOKENS)
    for found, whole in zip(done, hugging_face(TINY), strict=True):
        end = whole.index(stop) + 1 if stop in whole else NEW_TOKENS
        assert found.tokens == whole[:end]
        assert found.finish_reason == ("stop" if stop in whole else "length")


def test_a_folder_of_hugging_face(two, tmp_path):
    folder = tmp_path / "a folder"
    torch.manual_seed(0)
    made = hf.LlamaForCausalLM(config(TINY)).eval()
    made.save_pretrained(folder)
    prompt = list(prompts()[1])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = made.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **options)
    with ReshardingEngine(folder, "P2", "T2", pool=two) as loaded:
        loaded.stop_tokens = ()
        assert loaded.generate([prompt], 6)[0].tokens == tuple(expected[0, len(prompt) :].tolist())


@pytest.mark.slow
def test_orders_larger_than_a_pipe_do_not_wait_for_each_other(two):
    """Many long micro-batches at once: the driver sends while the ranks report."""
    lengths = (500,) * 24
    shape = replace(TINY, layers=2, vocab=2**16, hidden=8, head_dim=8, ffn=8)
    with engine(two, "P2", "T2", shape, host_blocks=1000, limits=Limits(4000, 64), device_blocks=1000) as made:
        done = made.generate(prompts(lengths, shape.vocab), 1)
    assert all(len(item.tokens) == 1 for item in done)


def test_weights_come_from_the_given_decoder(two):
    other = decoder(replace(TINY, name="other", rope_theta=500.0))
    with engine(two, "P2", "T2", other.shape) as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(other.shape)
