"""The engine's performance bars on a CPU: ratios of medians within one run, so that they hold on any machine."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch

from paperlab.serving import LLM, Limits, make_policy
from paperlab.serving.engine import Sampling
from tests.benchmarks.test_tempo import report

pytestmark = pytest.mark.bench
SIZES = {
    "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 1408, "vocab_size": 8192, "max_position_embeddings": 1024, "eos_token_id": None,
    "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
BATCH, PROMPT, OUTPUT, ROUNDS = 8, 64, 48, 5
IDS = torch.randint(0, SIZES["vocab_size"], (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))
FORCED = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def theirs():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("realistic")
    theirs.save_pretrained(path)
    return path


def decode_tokens_per_s(engine, batch):
    """Tokens over the time of the iterations that only decode."""
    engine.generate(IDS[:batch].tolist(), OUTPUT, FORCED)
    steps = [step for step in engine.log.steps if step.shape.kind == "decode"]
    return sum(len(step.emitted) for step in steps) / sum(step.end_s - step.start_s for step in steps)


def seconds(action):
    began_s = time.perf_counter()
    action()
    return time.perf_counter() - began_s


def test_batched_decode_yields_three_times_the_tokens(benchmark, folder):
    """8 sequences side by side against one alone."""
    engine = LLM(folder, "vllm-like")

    def measure():
        pairs = [(decode_tokens_per_s(engine, BATCH), decode_tokens_per_s(engine, 1)) for _ in range(ROUNDS)]
        return {"batch_over_single": statistics.median(batched / single for batched, single in pairs)}

    assert report(benchmark, measure)["batch_over_single"] >= 3


def test_no_slower_than_transformers(benchmark, folder, theirs):
    """The same weights, prompts, batch and threads, from the call to the last token."""
    engine = LLM(folder, "vllm-like")

    def ours():
        return [list(item.tokens) for item in engine.generate(IDS.tolist(), OUTPUT, FORCED)]

    @torch.inference_mode()
    def hugging_face():
        return theirs.generate(IDS, max_new_tokens=OUTPUT, do_sample=False)[:, PROMPT:].tolist()

    def measure():
        ours(), hugging_face()
        pairs = [(seconds(ours), seconds(hugging_face)) for _ in range(ROUNDS)]
        return {"ours_over_transformers": statistics.median(mine / other for mine, other in pairs)}

    assert report(benchmark, measure)["ours_over_transformers"] <= 1


@pytest.mark.parametrize("policy", ["vllm-like", "sglang-like", "fastserve-like", "nexus", "reactive"])
def test_the_scheduler_takes_two_percent_of_an_iteration(benchmark, folder, policy):
    """Chunked prompts and decodes that overlap; the median over iterations, and the sum of all of them."""
    engine = LLM(folder, make_policy(policy, limits=Limits(128, 64)))
    prompts, arrivals = IDS.repeat(3, 1).tolist(), [0.05 * index for index in range(3 * BATCH)]

    def measure():
        engine.generate(prompts, OUTPUT, FORCED, arrivals)
        steps = engine.log.steps
        taken = np.array([(step.scheduler_s, step.end_s - step.start_s) for step in steps])
        total_s, running_s = taken.sum(0)
        return {"share": float(total_s / running_s), "median_share": float(np.median(taken[:, 0] / taken[:, 1]))}

    shares = report(benchmark, measure)
    assert shares["share"] <= 0.02
    assert shares["median_share"] <= 0.02
