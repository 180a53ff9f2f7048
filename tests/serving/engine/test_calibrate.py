"""Fits to iterations of a machine that is known, since simulated; and, slowly, predictions of the real one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paperlab.hardware import device
from paperlab.serving import Limits, simulate, workload
from paperlab.serving.constants import DeviceConstants
from paperlab.serving.cost import OPERATORS
from paperlab.serving.engine.calibrate import calibrate
from paperlab.serving.engine.prediction import SEEN, SMALL, prediction_study, unseen_traces
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import fixed
from paperlab.serving.saturation import Saturation

LIMITS = Limits(token_budget=256, max_sequences=32)
FLAT = Saturation(knee=0.01, decay=0.0)
TRUTH = DeviceConstants(
    1.0, 1.0, 0.004, source="test", token_overhead_s=0.0005,
    attention_sweeps=3.0, decode_sweeps=12.0, mixed_penalty=1.25,
    compute_curves=dict.fromkeys(OPERATORS, FLAT), memory_curve=FLAT,
)  # fmt: skip
RATES = {"bandwidth_Bps": 8e9, "peak_flops_per_s": {"fp32": 40e9}}


def known(policy, work, **changes):
    """Serve `work` on a machine whose constants are known."""
    setup = {"constants": replace(TRUTH, **changes), "dtype": "fp32", "kv_tokens": 16_000, "limits": LIMITS}
    return simulate(policy, model=SMALL, device=replace(device("L20"), **RATES), workload=work, **setup)


def training(rate_per_s=8.0):
    return workload(SEEN, requests=80, rate_per_s=rate_per_s, seed=0)


def means(log):
    return log.summary()[["ttft_mean_s", "tbt_mean_s"]].to_numpy()[0]


def test_the_constants_of_a_known_machine_are_found():
    found = calibrate(known("vllm-like", training()), SMALL)
    constants, spec = found["constants"], found["device"]
    assert constants.step_overhead_s == pytest.approx(TRUTH.step_overhead_s, rel=0.1)
    assert constants.token_overhead_s == pytest.approx(TRUTH.token_overhead_s, rel=0.1)
    assert constants.mixed_penalty == pytest.approx(TRUTH.mixed_penalty, rel=0.05)
    assert spec.peak("fp32") == pytest.approx(40e9, rel=0.05)
    assert constants.decode_sweeps / spec.bandwidth_Bps == pytest.approx(TRUTH.decode_sweeps / 8e9, rel=0.1)
    assert found["kv_tokens"] == 16_000


@pytest.mark.parametrize("policy", ["vllm-like", "sglang-like", "nexus"])
@pytest.mark.parametrize("source", unseen_traces(), ids=lambda source: source.name)
def test_an_unseen_trace_of_a_known_machine_is_predicted(policy, source):
    options = calibrate(known(policy, training(), corun_penalty=1.4), SMALL)
    unseen = workload(source, requests=80, rate_per_s=5.0, seed=7)
    predicted = simulate(policy, workload=unseen, limits=LIMITS, **options)
    assert means(predicted) == pytest.approx(means(known(policy, unseen, corun_penalty=1.4)), rel=0.05)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 2.0])
def test_what_lanes_cost_each_other_is_found(penalty):
    found = calibrate(known("nexus", training(4.0), corun_penalty=penalty), SMALL)
    assert found["constants"].corun_penalty == pytest.approx(penalty, rel=0.1)


def test_a_machine_of_half_the_speed_yields_twice_the_times():
    """Stretching a log's clock stretches every constant that is a time, and nothing else."""
    log = known("vllm-like", training())
    slow = EventLog(log.about, log.requests, [stretched(step) for step in log.steps])
    once, twice = calibrate(log, SMALL), calibrate(slow, SMALL)
    work = workload(fixed(100, 20), requests=1, arrivals="at_once")
    fast, late = (means(simulate("vllm-like", workload=work, limits=LIMITS, **found)) for found in (once, twice))
    assert late == pytest.approx(2 * fast, rel=0.02)


def stretched(step):
    return step._replace(start_s=2 * step.start_s, end_s=2 * step.end_s)


def test_too_few_iterations_are_refused():
    with pytest.raises(ValueError, match="calibrate: 9 iterations outside of overlaps; at least 30 are needed"):
        calibrate(known("vllm-like", workload(fixed(10, 9), requests=1, arrivals="at_once")), SMALL)


@pytest.mark.slow
def test_unseen_traces_of_this_machine_are_predicted():
    """Mean TTFT and TBT within 20 %, where other programs left the machine steady enough to tell."""
    table = prediction_study(["vllm-like"], unseen_traces()[:2])
    steady = table[table["noise"] < 0.05]
    if steady.empty:
        pytest.skip(f"the machine's pace was known to {table['noise'].min():.0%} only while it was measured")
    assert steady["error"].abs().max() < 0.2, steady.to_string()
