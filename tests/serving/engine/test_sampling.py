"""Draws follow the distribution they should, and depend on nothing but the request."""

from __future__ import annotations

import pytest
import torch

from paperlab.serving import LLM, Limits, make_policy
from paperlab.serving.engine import Sampling
from paperlab.serving.engine.sampling import Sampler, choose
from tests.serving.engine import tiny

LOGITS = torch.tensor([2.0, 0.5, 1.0, -1.0, 1.5])
WARM = Sampling(temperature=0.8, top_p=0.95)


def frequencies(sampling, draws=2000):
    sampler = Sampler(sampling, seed=3)
    return torch.bincount(torch.tensor([sampler.draw(LOGITS) for _ in range(draws)]), minlength=5) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature(temperature):
    expected = (LOGITS / temperature).softmax(0)
    assert (frequencies(Sampling(temperature=temperature)) - expected).abs().max() < 0.045


@pytest.mark.parametrize(("top_p", "kept"), [(1.0, 5), (0.9, 4), (0.75, 3), (0.6, 2), (0.3, 1), (1e-9, 1)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    probabilities = LOGITS.softmax(0)
    best = probabilities.topk(kept)
    assert best.values.sum() >= min(top_p, 1 - 1e-6)
    assert kept == 1 or best.values[:-1].sum() < top_p
    expected = torch.zeros(5).index_put((best.indices,), best.values / best.values.sum())
    assert (frequencies(Sampling(temperature=1.0, top_p=top_p)) - expected).abs().max() < 0.045


def test_greedy_rows_stay_greedy_beside_drawing_ones():
    samplers = [Sampler(Sampling(), 0), Sampler(Sampling(temperature=5.0), 1), Sampler(Sampling(), 2)]
    rows = torch.stack([LOGITS, LOGITS, LOGITS.flip(0)])
    drawn = {tuple(choose(rows, samplers)) for _ in range(40)}
    assert {(first, last) for first, _, last in drawn} == {(0, 4)}
    assert len(drawn) > 1


def outputs(folder, policy="vllm-like", budget=64, prompts=None, sampling=WARM, seed=0, kv_blocks=100, **options):
    made = make_policy(policy, limits=Limits(budget))
    llm = LLM(folder, made, block_size=7, kv_blocks=kv_blocks, dtype=torch.float64, device="cpu", seed=seed)
    return [item.tokens for item in llm.generate(prompts or tiny.prompts(), 10, sampling, **options)]


def test_draws_do_not_depend_on_batching_policy_or_preemption(folders):
    folder = folders["llama"]
    together = outputs(folder)
    assert together != outputs(folder, sampling=Sampling())
    assert together == outputs(folder, budget=3) == outputs(folder, "nexus", 16)
    assert together == outputs(folder, kv_blocks=8) == outputs(folder, arrival_s=[0.008, 0.006, 0.004, 0.002, 0.0])
    assert together != outputs(folder, seed=1)


def test_a_seed_of_its_own_makes_a_request_independent_of_its_place(folders):
    prompt = tiny.prompts()[0]
    own = Sampling(temperature=1.0, seed=11)
    alone = outputs(folders["llama"], prompts=[prompt], sampling=own)
    rest = [Sampling(temperature=1.0, seed=seed) for seed in (1, 2, 11)]
    among = outputs(folders["llama"], prompts=[*tiny.prompts()[1:3], prompt], sampling=rest)
    assert among[2] == alone[0]
    twice = outputs(folders["llama"], prompts=[prompt, prompt], sampling=own)
    assert twice[0] == twice[1]
    apart = outputs(folders["llama"], prompts=[prompt, prompt], sampling=Sampling(temperature=1.0))
    assert apart[0] != apart[1]


@pytest.mark.parametrize(("values", "message"), [
    ({"temperature": -1}, "temperature is -1; it must be 0"),
    ({"temperature": float("nan")}, "temperature is nan"),
    ({"top_p": 0}, "top_p is 0; it must be above 0"),
    ({"top_p": 1.5}, "top_p is 1.5"),
])  # fmt: skip
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**values)
