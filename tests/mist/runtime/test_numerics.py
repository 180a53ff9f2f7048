"""Every plan trains as one process does: loss, gradients and updated weights, over three iterations."""

import pytest

from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import train
from paperlab.mist.runtime.reference import collect, deviation, single_process
from tests.mist.runtime.plans import MODELS, offload, plan_of

PLANS = {
    "one rank": plan_of(1, 4),
    "DP2": plan_of(1, dp=2, micro_batch=1),
    "TP2": plan_of(1, tp=2),
    "PP2": plan_of(2, 4),
    "PP2 DP2": plan_of(2, dp=2, micro_batch=1),
    "TP2 DP2, ZeRO-3, checkpointing": plan_of(1, tp=2, dp=2, micro_batch=1, zero=3, checkpointed=3),
    "PP2 TP2": plan_of(2, tp=2),
    "PP4": plan_of(4, 4),
    "ZeRO-0": plan_of(1, dp=2, micro_batch=1, zero=0),
    "ZeRO-2": plan_of(1, dp=2, micro_batch=1, zero=2),
    "ZeRO-3": plan_of(1, dp=2, micro_batch=1, zero=3),
    "checkpointing": plan_of(1, checkpointed=2),
    "all offloaded by half": plan_of(1, checkpointed=1, **offload(0.5)),
    "all offloaded": plan_of(1, checkpointed=1, **offload(1.0)),
    "ZeRO-3, all offloaded by half": plan_of(1, dp=2, micro_batch=1, zero=3, **offload(0.5)),
    "ZeRO-2, uneven offload": plan_of(
        1, dp=2, micro_batch=1, zero=2, weight_offload=0.3, grad_offload=0.7, optimizer_offload=0.9
    ),
    "ZeRO-1, all offloaded": plan_of(1, dp=2, micro_batch=1, **offload(1.0)),
    "PP2 DP2, ZeRO-3, all offloaded by half": plan_of(2, dp=2, micro_batch=1, zero=3, checkpointed=1, **offload(0.5)),
    "no accumulation": plan_of(1, 1, dp=2, zero=2, grad_offload=0.5),
}


def check(pool, plan, **options):
    results = pool.run(train, plan, 3, Options(account=False, **options), capture=True)
    found = deviation(collect(plan, results), single_process(plan, 3))
    assert max(found.values()) <= 1e-5, found
    return results


@pytest.mark.parametrize("name", PLANS)
def test_plan_trains_as_one_process_does(pool, name):
    check(pool, PLANS[name])


@pytest.mark.parametrize("model", [name for name in MODELS if name != "gpt"])
@pytest.mark.parametrize("stage", [{"stages": 2, "tp": 2, "checkpointed": 1, **offload(0.5)}])
def test_every_family(pool, model, stage):
    check(pool, plan_of(**stage, model=model))


@pytest.mark.parametrize("name", ["all offloaded", "ZeRO-3, all offloaded by half", "ZeRO-2, uneven offload"])
def test_no_overlap_changes_no_number(pool, name):
    check(pool, PLANS[name], overlap=False)


@pytest.mark.parametrize("name", ["all offloaded", "ZeRO-3, all offloaded by half", "ZeRO-2, uneven offload"])
def test_monolithic_optimizer_gives_the_same_weights(pool, name):
    weights = [
        collect(PLANS[name], pool.run(train, PLANS[name], 3, Options(decoupled=decoupled), capture=True)).weights
        for decoupled in (True, False)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[1][key].equal(value) for key, value in weights[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("accumulation", [2, 4])
@pytest.mark.parametrize("checkpointed", [0, 1, 2])
def test_grid(pool, stages, zero, ratio, accumulation, checkpointed):
    stage = {"dp": 2, "micro_batch": 1, "zero": zero, "checkpointed": checkpointed, **offload(ratio)}
    check(pool, plan_of(stages, accumulation, **stage))


def test_a_wrong_run_is_noticed(pool):
    plan = PLANS["DP2"]
    results = pool.run(train, plan, 3, Options(account=False, seed=1), capture=True)
    found = deviation(collect(plan, results), single_process(plan, 3))
    assert min(found["gradients"], found["weights"]) > 1e-2
