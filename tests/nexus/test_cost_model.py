"""The controller's cost model: limits, monotonicity, contention, and that every input matters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.hardware import device
from paperlab.nexus.belief import KEYS, Belief, published_belief
from paperlab.nexus.cost_model import CostModel
from paperlab.serving.saturation import Saturation
from paperlab.serving.work import StepShape
from tests.nexus.small import QWEN, cost_model, decode, decodes, prefill, prefills, shares, uniform

FAMILIES = st.sampled_from(("slope", "exponential"))


@given(prefills, decodes, shares, shares, FAMILIES)
def test_a_phase_never_slows_down_with_its_share(prompts, tokens, one, other, family):
    model = cost_model(belief=published_belief(family))
    low, high = sorted((one, other))
    for step in (prompts, tokens):
        assert sum(model.times(step, low).values()) >= sum(model.times(step, high).values()) * (1 - 1e-12)


@given(st.integers(1, 4000), st.integers(0, 20_000), st.integers(1, 200), st.integers(1, 20_000), shares)
def test_more_tokens_a_larger_batch_and_longer_caches_never_cost_less(tokens, context, batch, each, share):
    model = cost_model()

    def total(step):
        return sum(model.times(step, share).values())

    assert total(prefill(tokens, context)) <= total(prefill(tokens + 64, context)) <= total(
        prefill(tokens + 64, context + 512)
    )  # fmt: skip
    assert total(decode(batch, each)) <= total(decode(batch + 1, each)) <= total(decode(batch + 1, each + 512))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_curves_are_continuous_at_the_knee(phase):
    belief = published_belief()
    for (of, name), curve in belief.curves.items():
        if of == phase:
            below, above = (curve.saturation.rate(curve.saturation.knee + shift) for shift in (-1e-9, 1e-9))
            assert below == pytest.approx(above, rel=1e-7), name


@given(shares)
def test_decay_one_is_proportional_and_decay_zero_is_flat_above_the_knee(share):
    step = prefill(8192, 0)
    proportional, flat = (cost_model(belief=uniform(knee=0.5, decay=decay)) for decay in (1.0, 0.0))
    compute_bound = [item.name for item in proportional.operators(step) if item.compute_s > item.memory_s]
    assert set(compute_bound) == {"qkv", "prefill_attention", "out", "ffn"}
    for name in compute_bound:
        whole = proportional.times(step, 1.0)[name]
        assert proportional.times(step, share)[name] == pytest.approx(whole / share)
        assert flat.times(step, max(share, 0.5))[name] == pytest.approx(flat.times(step, 1.0)[name])


def test_each_operator_takes_the_longer_of_its_two_sides():
    step, model = decode(), cost_model(belief=uniform())
    for share in (0.01, 0.1, 1.0):
        by_hand = {
            name: max(flops / (0.5 * 119.5e12 * share), moved / 864e9) for name, flops, moved in QWEN.demands(step)
        }
        assert model.times(step, share) == pytest.approx(by_hand | {"fixed": 0.0})
    assert model.times(step, 1.0)["decode_attention"] == pytest.approx(20 * 6000 * 36_864 / 864e9)


@given(prefills, decodes, shares)
def test_co_run_agrees_with_the_named_times(prompts, tokens, share):
    model = cost_model()
    co_run = model.co_run(prompts, tokens)
    assert co_run.prefill_s(share) == pytest.approx(sum(model.times(prompts, share).values()))
    bandwidth = co_run.decode_bandwidth(share)
    assert co_run.decode_s(1 - share / 2, share) == pytest.approx(
        sum(model.times(tokens, 1 - share / 2, bandwidth).values())
    )
    assert co_run.decode_s(share) == pytest.approx(sum(model.times(tokens, share).values()))


@given(prefills, decodes, shares, st.sampled_from(("bytes", "rate")))
def test_decode_never_gets_more_than_the_bandwidth_and_all_of_it_alone(prompts, tokens, share, contention):
    co_run = cost_model(contention).co_run(prompts, tokens)
    assert 0 < co_run.decode_bandwidth(share) < 1
    assert co_run.decode_s(share) <= co_run.decode_s(share, share)
    assert cost_model("none").co_run(prompts, tokens).decode_bandwidth(share) == 1


class Traffic:
    """Demands as they come, with some operators' bytes multiplied."""

    def __init__(self, factors):
        self.factors, self.arithmetic = factors, QWEN.arithmetic

    def demands(self, step):
        return [
            item._replace(moved_bytes=item.moved_bytes * self.factors.get(item.operator, 1))
            for item in QWEN.demands(step)
        ]


@given(st.sampled_from(("bytes", "rate")), st.floats(1.5, 20), st.floats(0.2, 0.9))
def test_more_prefill_traffic_leaves_decode_less_bandwidth(contention, factor, share):
    """Prefill is compute-bound, so that its traffic changes nothing else."""
    prompts, tokens = prefill(8192, 1000), decode()

    def bandwidth(**factors):
        belief = uniform()
        model = CostModel(Traffic(factors), device("L20"), belief, contention)
        co_run = model.co_run(prompts, tokens)
        assert co_run.prefill_s(share) == pytest.approx(
            cost_model(belief=belief).co_run(prompts, tokens).prefill_s(share)
        )
        return co_run.decode_bandwidth(share)

    assert bandwidth(prefill_attention=factor) < bandwidth()
    assert bandwidth(ffn=min(factor, 3)) < bandwidth()


def test_more_multiprocessors_for_decode_lower_the_overlap_when_attention_is_memory_bound():
    """The stated dynamics (§4.1.1). A single new token over a long cache makes attention memory-bound."""
    co_run = cost_model(belief=uniform()).co_run(prefill(512, 400_000)._replace(prefill_pairs=1), decode())
    overlaps = [co_run.overlap(1 - decode_share) for decode_share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert overlaps == sorted(overlaps, reverse=True)
    assert overlaps[0] > overlaps[-1]


def test_cache_lengths_matter():
    """A model of constants, or of 1/r alone, would not see them."""
    base = cost_model().co_run(prefill(2048, 2048), decode(20, 6000))
    longer_prompt = cost_model().co_run(prefill(2048, 20_000), decode(20, 6000))
    longer_decode = cost_model().co_run(prefill(2048, 2048), decode(20, 12_000))
    assert longer_prompt.decode_s(0.5, 0.5) != base.decode_s(0.5, 0.5)
    assert longer_prompt.prefill_s(0.5) > base.prefill_s(0.5)
    assert longer_decode.decode_s(0.5, 0.5) > base.decode_s(0.5, 0.5)


@given(st.integers(1, 256), st.integers(1, 20_000), shares)
@settings(max_examples=50)
def test_tiles_leave_the_fitted_batch_alone_and_make_thin_batches_pay(batch, each, share):
    plain, tiled = (cost_model(belief=published_belief("slope", rows)) for rows in (1, 128))
    fitted = decode(20, each)
    assert tiled.times(fitted, share) == pytest.approx(plain.times(fitted, share))
    thin = decode(min(batch, 19), each)
    assert sum(tiled.times(thin, share).values()) >= sum(plain.times(thin, share).values()) * (1 - 1e-12)


def test_impossible_beliefs_and_batches_are_refused():
    with pytest.raises(ValueError, match="give one for each"):
        Belief({})
    with pytest.raises(ValueError, match="overhead_s is -1"):
        Belief(published_belief().curves, overhead_s=-1)
    with pytest.raises(ValueError, match="one phase at a time"):
        cost_model().operators(StepShape(1, 0, 1, 1, 5, 1))
    with pytest.raises(ValueError, match="contention is 'some'"):
        cost_model("some")
    with pytest.raises(ValueError, match="a prefill and a decode batch"):
        cost_model().co_run(decode(), prefill())
    with pytest.raises(ValueError, match="family is 'cubic'"):
        published_belief("cubic")
    assert set(published_belief().curves) == set(KEYS)
    assert Saturation() == Saturation(1.0, 1.0)
