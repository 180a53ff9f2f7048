"""Baselines: bounds lose nothing, the spaces hold what they say, and what cannot be compared is told."""

import pytest

from paperlab.mist.baselines import systems, uniform
from paperlab.mist.baselines.aceso import Aceso
from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import predict, shortfalls
from paperlab.mist.models import gpt
from paperlab.mist.plan import Plan
from paperlab.mist.search.space import settings
from paperlab.mist.search.tuner import tune
from tests.mist.small import GOLDEN

L4 = cluster("l4", 1, 2)
NAMES = (systems.MEGATRON_FORCED, systems.MEGATRON_FREE, systems.DEEPSPEED_FREE, systems.DEEPSPEED_OFFLOAD)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_lose_nothing(name, monkeypatch):
    found = systems.best_plan(name, GOLDEN, L4, 32)
    monkeypatch.setattr(uniform, "optimistic_s", lambda *_: 0.0)
    whole = systems.best_plan(name, GOLDEN, L4, 32)
    assert found.plan.prediction.iteration_s == whole.plan.prediction.iteration_s
    assert found.compared == whole.compared


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_megatron_row_is_the_best_of_its_space_one_by_one(name):
    space, best = systems.UNIFORMS[name].space, float("inf")
    for setting in settings(GOLDEN, L4, 32, space):
        layers, policies = GOLDEN.layers // setting.stages, space.policies(setting.dp)
        for count in space.checkpointed(layers):
            stage = policies.stage(0, layers, int(count), setting)
            plan = Plan(GOLDEN, L4.size, 32, setting.accumulation, (stage,) * setting.stages)
            if not shortfalls(plan, L4):
                best = min(best, predict(plan, L4).prediction.iteration_s)
    found = systems.best_plan(name, GOLDEN, L4, 32).plan
    assert found.prediction.iteration_s == pytest.approx(best, rel=1e-12)
    assert not shortfalls(found, L4)


def test_more_freedom_is_never_slower_and_mist_never_loses():
    times = [systems.best_plan(name, GOLDEN, L4, 32).plan.prediction.iteration_s for name in NAMES]
    assert times == sorted(times, reverse=True)
    assert tune(GOLDEN, L4, 32, solver="sweep").prediction.iteration_s <= min(times)


def test_aceso_fits_and_is_never_offloaded_or_sharded_further():
    found = systems.best_plan(systems.ACESO, GOLDEN, L4, 32, Aceso(evaluations=60))
    assert not shortfalls(found.plan, L4)
    assert all(stage.zero <= 1 and stage.optimizer_offload == 0 for stage in found.plan.stages)
    assert found.compared <= 2 * 60


def test_what_cannot_be_compared_is_told():
    with pytest.raises(ValueError, match="Aceso has no flash attention"):
        systems.best_plan(systems.ACESO, gpt("1.3b", seq_len=2048), L4, 32)
    with pytest.raises(ValueError, match="baseline is 'Alpa'; choose one of"):
        systems.best_plan("Alpa", GOLDEN, L4, 32)
    with pytest.raises(ValueError, match="must be positive"):
        Aceso(hops=0)
