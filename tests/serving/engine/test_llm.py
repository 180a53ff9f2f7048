"""The public face: refusal of single requests, stop tokens, streaming, serving, clean ends."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading

import pytest
import torch

from paperlab.serving import LLM, Limits, make_policy, workload
from paperlab.serving.cluster import Cluster
from paperlab.serving.engine import Sampling
from paperlab.serving.policy import Policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Stalled
from paperlab.serving.work import IDLE
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape
from tests.serving import doubles
from tests.serving.engine import tiny

SHAPE = ModelShape(
    name="small", layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=tiny.VOCAB, max_positions=128,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip


def llm(model=SHAPE, policy="vllm-like", **options):
    made = make_policy(policy, limits=Limits(16)) if isinstance(policy, str) else policy
    return LLM(model, made, **({"block_size": 7, "kv_blocks": 30, "dtype": torch.float64, "device": "cpu"} | options))


def tokenizer_in(folder):
    """Write a tokenizer whose words are w0, w1 … in the format of the tokenizers library."""
    model = {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(tiny.VOCAB)}, "unk_token": "w0"}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model} | parts
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def test_importing_serving_is_light():
    code = "import sys, paperlab.serving; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_text_in_text_out(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    tokenizer_in(tmp_path)
    engine = llm(tmp_path)
    words = ["w3 w17 w5", "w80"]
    answers = engine.generate(words, 6)
    ids = [[3, 17, 5], [80]]
    assert [item.prompt for item in answers] == [tuple(prompt) for prompt in ids]
    assert [item.tokens for item in answers] == [item.tokens for item in engine.generate(ids, 6)]
    assert answers[0].text.split() == [f"w{token}" for token in answers[0].tokens]
    pieces = list(engine.stream(words, 6))
    assert "".join(piece.text for piece in pieces if piece.prompt == 1) == answers[1].text


@pytest.mark.parametrize("policy", doubles.one_device_policies())
def test_a_request_that_can_never_fit_is_refused_alone(policy):
    engine = llm(policy=policy, kv_blocks=10)
    prompts = [[1] * 5, [2] * 66, [3] * 100, [4] * 9]
    answers = engine.generate(prompts, [6, 5, 6, 6])
    assert [item.finish_reason for item in answers] == ["length", "refused", "refused", "length"]
    assert [len(item.tokens) for item in answers] == [6, 0, 0, 6]
    assert answers[1].detail == "prompt and output need 71 tokens; at most 70 fit"
    assert [item.tokens for item in answers[::3]] == [item.tokens for item in engine.generate(prompts[::3], 6)]


def test_the_model_limits_too():
    answers = llm(kv_blocks=100).generate([[1] * 120, [1] * 4], 9)
    assert [item.finish_reason for item in answers] == ["refused", "length"]
    assert "at most 128 fit" in answers[0].detail
    assert llm(kv_blocks=1).generate([[1] * 8], 1)[0].finish_reason == "refused"


def test_stop_tokens_end_a_request_and_free_its_blocks(folders):
    engine = llm(folders["llama"])
    whole = [item.tokens for item in engine.generate(tiny.prompts(), 12)]
    stop = whole[0][3]
    answers = engine.generate(tiny.prompts(), 12, Sampling(stop_tokens=(stop,)))
    for item, tokens in zip(answers, whole, strict=True):
        expected = tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
        assert item.tokens == expected
        assert item.finish_reason == ("stop" if stop in tokens else "length")
    assert answers[0].finish_reason == "stop"
    engine.stop_tokens = (stop,)
    assert [item.tokens for item in engine.generate(tiny.prompts(), 12)] == [item.tokens for item in answers]


@pytest.mark.parametrize("policy", ["vllm-like", "nexus", "fastserve-like"])
def test_a_stream_yields_what_generate_returns(folders, policy):
    engine = llm(folders["llama"], policy)
    whole = [item.tokens for item in engine.generate(tiny.prompts(), 8)]
    found = [[] for _ in whole]
    order = []
    for piece in engine.stream(tiny.prompts(), 8):
        found[piece.prompt].append(piece.token)
        order.append(piece.prompt)
    assert [tuple(tokens) for tokens in found] == whole
    assert order != sorted(order)  # they come as they come out, not one prompt after the other


def test_a_closed_stream_ends_its_lanes_and_frees_the_engine(folders):
    engine = llm(folders["llama"], "nexus")
    before = set(threading.enumerate())
    stream = engine.stream(tiny.prompts(), 12)
    next(stream)
    with pytest.raises(RuntimeError, match="a run is under way"):
        engine.generate([[1]], 1)
    stream.close()
    assert set(threading.enumerate()) == before
    assert engine.generate([[1]], 1)[0].finish_reason == "length"


@pytest.mark.parametrize("policy", doubles.one_device_policies())
def test_serving_a_workload(policy, checked):
    load = workload("sharegpt", rate_per_s=300.0, requests=12, seed=1).scaled(tokens=1 / 40)
    engine = llm(policy=policy, kv_blocks=12)
    log = engine.serve(load)
    requests = {request.request_id: request for request in load.requests}
    emitted = [request for step in log.steps for request in step.emitted]
    refused = {note.request_id for note in log.notes if note.kind == "refuse"}
    assert len(refused) < len(requests)
    for identity, request in requests.items():
        assert emitted.count(identity) == (0 if identity in refused else request.output_tokens)
    assert all(request in requests for request in emitted)
    first = {identity: min(s.start_s for s in log.steps if identity in s.requests) for identity in set(emitted)}
    assert all(start_s >= requests[identity].arrival_s for identity, start_s in first.items())
    assert all(step.end_s > step.start_s and step.scheduler_s > 0 for step in log.steps)
    assert log.about["evidence"] == "measured-cpu"
    assert log is engine.log
    row = log.summary().iloc[0]
    assert row["system"] == policy


def test_two_lanes_overlap_in_real_time_and_the_log_calls_them_unpartitioned(folders):
    engine = llm(folders["llama"], "nexus")
    engine.generate(tiny.prompts() * 6, 30)
    lanes = {"prefill": [], "decode": []}
    for step in engine.log.steps:
        lanes[step.lane].append((step.start_s, step.end_s))
    overlaps = [(p, d) for p in lanes["prefill"] for d in lanes["decode"] if p[0] < d[1] and d[0] < p[1]]
    assert overlaps
    for spans in lanes.values():
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    assert engine.log.about["partition"] == "unpartitioned"
    assert llm().generate([[1]], 1)
    threads = torch.get_num_threads()
    engine.generate([[1, 2]], 2)
    assert torch.get_num_threads() == threads


def test_a_policy_object_starts_each_run_afresh(folders):
    engine = llm(folders["llama"], "nexus")
    engine.generate(tiny.prompts(), 4)
    first = engine.policy
    engine.generate(tiny.prompts(), 4)
    assert first is not engine.policy
    assert first.records
    assert engine.policy.records[0].time_s < first.records[-1].time_s + 1


class Lazy(Policy):
    """Does nothing, or fails."""

    name = "lazy"

    def __init__(self, base, failing=False):
        super().__init__()
        self.lanes, self.failing = base.lanes, failing

    def schedule(self, lane, cluster):
        if self.failing and lane == self.lanes[-1].name:
            raise ZeroDivisionError("in the policy")
        return IDLE


@pytest.mark.parametrize("base", ["vllm-like", "nexus", "fastserve-like"])
def test_idleness_and_failures_end_the_run(base):
    before = set(threading.enumerate())
    with pytest.raises(Stalled, match="lazy: 2 requests left and nothing to run"):
        llm(policy=Lazy(make_policy(base))).generate([[1], [2]], 3)
    with pytest.raises(ZeroDivisionError, match="in the policy"):
        llm(policy=Lazy(make_policy(base), failing=True)).generate([[1], [2]], 3)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("policy", ["vllm-like", "nexus", "vllm-pd-like"])
def test_an_exception_in_a_lane_reaches_the_caller_and_the_engine_goes_on(folders, monkeypatch, policy):
    engine = llm(folders["llama"], policy)
    wanted = engine.generate(tiny.prompts(), 6)
    before, original = set(threading.enumerate()), Cluster.finish
    calls = []

    def fail(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise MemoryError("no room")
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "finish", fail)
        with pytest.raises(MemoryError, match="no room"):
            engine.generate(tiny.prompts(), 6)
        calls.clear()
        with pytest.raises(MemoryError, match="no room"):
            list(engine.stream(tiny.prompts(), 6))
    assert set(threading.enumerate()) == before
    assert engine.generate(tiny.prompts(), 6) == wanted


def test_late_arrivals_are_waited_for():
    requests = (Request(0, 0.0, 4, 2), Request(1, 0.15, 4, 2))
    log = llm(policy="nexus").serve(Workload("two", requests))
    starts = [step.start_s for step in log.steps if 1 in step.requests]
    assert 0.15 <= starts[0] < 0.3
    assert [note.request_id for note in log.notes if note.kind == "finish"] == [0, 1]


@pytest.mark.parametrize(("prompts", "options", "message"), [
    ([], {}, "prompts is empty"),
    ("text", {}, "prompts is one text"),
    (["text"], {}, "prompt 0 is text and there is no tokenizer"),
    ([[1], []], {}, "prompt 1 has no tokens"),
    ([[1, 89]], {}, "prompt 0 has token 89; ids go from 0 to 88"),
    ([[1]], {"max_new_tokens": 0}, "output_tokens is 0"),
    ([[1]], {"max_new_tokens": [1, 2]}, "max_new_tokens has 2 entries for 1 prompts"),
    ([[1]], {"sampling": [Sampling()] * 2}, "sampling has 2 entries"),
    ([[1]], {"arrival_s": [-1.0]}, "arrival_s is -1"),
])  # fmt: skip
def test_bad_prompts(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        llm().generate(prompts, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"kv_blocks": 0}, "blocks is 0"),
    ({"block_size": 0}, "block_size 0"),
    ({"policy": "fastserve-like", "host_blocks": 0}, "pool host: blocks is 0"),
    ({"model": "/nowhere/at all"}, "checkpoint /nowhere/at all: no such folder"),
])  # fmt: skip
def test_bad_engines(options, message):
    with pytest.raises(ValueError, match=message):
        llm(**options)


def test_unknown_policy():
    with pytest.raises(ValueError, match="unknown policy 'best'"):
        LLM(SHAPE, "best", device="cpu")


def test_a_policy_with_links_of_its_own_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="seesaw: copies over"):
        LLM("no-such-folder", "seesaw")
