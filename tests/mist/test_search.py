"""The search: spaces count as published, fronts and solvers equal brute force, and the tuner survives anything."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import predict, shortfalls
from paperlab.mist.models import gpt
from paperlab.mist.plan import Plan
from paperlab.mist.search import tuner
from paperlab.mist.search.fronts import pareto, sampled
from paperlab.mist.search.inter import Option, brute_force, cut, lower_bound_s, solve_milp, solve_sweep
from paperlab.mist.search.intra import IntraSearch, Selection
from paperlab.mist.search.space import FULL, Space, cumulative_spaces, size
from paperlab.mist.search.space import settings as candidates
from paperlab.mist.search.tuner import NothingFits, search, tune
from tests.mist.small import GOLDEN, tiny

L4 = cluster("l4", 1, 2)
SMALL = replace(
    FULL, weight_ratios=(0.0,), grad_ratios=(0.0,), optimizer_ratios=(0.0, 0.5), activation_ratios=(0.0, 0.5)
)


def random_stages(seed):
    """Stages of one to four with up to five layer counts and five policies each; some have no assignment."""
    generator = np.random.default_rng(seed)
    stages = []
    for _ in range(int(generator.integers(1, 5))):
        counts = generator.choice(np.arange(1, 9), int(generator.integers(1, 6)), replace=False)
        stages.append([
            Option(int(n), float(n * generator.uniform(0.5, 2)), float(generator.uniform(0, 6)), tag=k)
            for n in counts for k in range(int(generator.integers(1, 6)))
        ])  # fmt: skip
    layers = int(generator.integers(len(stages), 6 * len(stages) + 1))
    return stages, layers, int(len(stages) * generator.integers(1, 9))


@pytest.mark.parametrize("seed", range(60))
def test_both_solvers_equal_brute_force(seed):
    stages, layers, accumulation = random_stages(seed)
    right = brute_force(stages, layers, accumulation)
    for solve in (solve_milp, solve_sweep):
        found = solve(stages, layers, accumulation)
        assert (found is None) == (right is None), solve.__name__
        if right is not None:
            assert found.iteration_s == pytest.approx(right.iteration_s, rel=1e-9)
            assert sum(option.layers for option in found.options) == layers


def test_some_of_those_instances_are_infeasible():
    infeasible = [seed for seed in range(60) if brute_force(*random_stages(seed)) is None]
    assert 3 <= len(infeasible) <= 40


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_bounds_and_cuts_never_lose_the_optimum(seed):
    stages, layers, accumulation = random_stages(seed)
    right = brute_force(stages, layers, accumulation)
    bound = lower_bound_s(stages, layers, accumulation)
    if right is None:
        assert bound == np.inf
        return
    assert bound <= right.iteration_s * (1 + 1e-12)
    kept = cut(stages, accumulation, right.iteration_s * (1 + 1e-9))
    assert brute_force(kept, layers, accumulation).iteration_s == right.iteration_s
    for solve in (solve_milp, solve_sweep):
        assert solve(stages, layers, accumulation, incumbent_s=right.iteration_s * (1 - 1e-6)) is None


def test_uneven_layers_and_a_larger_t_win_where_they_should():
    """13/11 beats 12/12 if the last stage carries a head; with G = 1 a larger t with a smaller d wins."""
    ends = [[Option(n, n * 1.0, 0.0) for n in (11, 12, 13)], [Option(n, n * 1.0 + 2, 0.0) for n in (11, 12, 13)]]
    assert [o.layers for o in solve_milp(ends, 24, 16).options] == [13, 11]
    choice = [[Option(4, 4.0, 3.0, tag=0), Option(4, 5.0, 0.0, tag=1)]]
    assert solve_milp(choice, 4, 1).options[0].tag == 1
    assert solve_milp(choice, 4, 8).options[0].tag == 0


points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


@given(points)
@settings(deadline=None)
def test_front_is_what_nothing_dominates(rows):
    t, d = np.array(rows, float).T
    front = pareto(t, d)
    found = {(t[i], d[i]) for i in front}
    undominated = {
        (a, b) for a, b in zip(t, d, strict=True)
        if not any(x <= a and y <= b and (x, y) != (a, b) for x, y in zip(t, d, strict=True))
    }  # fmt: skip
    assert found == undominated
    assert len(front) == len(found)
    assert set(sampled(t, d, 0.5)) <= set(range(len(t)))
    assert {(t[i], d[i]) for i in sampled(t, d, 0.5)} <= {
        (a, b) for a, b in zip(t, d, strict=True) if not any(x < a and y < b for x, y in zip(t, d, strict=True))
    }


def test_spaces_have_the_published_sizes():
    """The artifact's enumeration for GPT-22B on 4 x 8 GPUs, 512 sequences (third column of the dossier's table)."""
    spec, where = gpt("22b", seq_len=2048), cluster("l4", 4, 8)
    sizes = [size(spec, where, 512, space) for space in cumulative_spaces().values()]
    assert [item.configurations for item in sizes] == [54, 138, 1104, 8832, 52992, 273792, 273792]
    assert [item.offload_combinations for item in sizes] == [1, 1, 8, 64, 384, 1984, 1984]


@pytest.mark.parametrize(
    ("name", "nodes", "gpus", "batch", "published"),
    [
        ("22b", 4, 8, 512, 6.6e7), ("13b", 2, 8, 256, 3.7e7), ("7b", 1, 8, 128, 1.8e7), ("2.7b", 1, 4, 64, 9.1e6),
        ("1.3b", 1, 2, 32, 2.5e6),
    ],
)  # fmt: skip
def test_reachable_configurations(name, nodes, gpus, batch, published):
    spec, where = gpt(name, seq_len=2048), cluster("l4", nodes, gpus)
    found = size(spec, where, batch, FULL)
    assert found.artifact_counts == pytest.approx(published, rel=0.03)  # two digits are published
    assert found.reachable < found.artifact_counts


def test_the_number_evaluated_is_the_number_counted():
    found = search(GOLDEN, L4, 32, SMALL, prune=False)
    assert found.evaluated == size(GOLDEN, L4, 32, SMALL).reachable


def test_pruned_and_unpruned_searches_choose_the_same_plan():
    plans = [
        tune(GOLDEN, L4, 32, SMALL, solver=solver, prune=prune)
        for solver in ("milp", "sweep")
        for prune in (True, False)
    ]
    assert all(plan == plans[0] for plan in plans)


@pytest.mark.slow
def test_pruned_and_unpruned_searches_agree_on_the_full_space_of_7b():
    spec, where = gpt("7b", seq_len=2048), cluster("l4", 1, 8)
    found = [search(spec, where, 128, prune=prune) for prune in (True, False)]
    assert found[0].plan == found[1].plan
    assert sum(c.outcome == "cut" for c in found[0].candidates) > sum(c.outcome == "cut" for c in found[1].candidates)


def test_the_tuner_equals_an_exhaustive_search_on_a_tiny_space():
    space = Space(
        "free", (1, 2), (0.0,), (0.0,), (0.0, 0.5), (0.0,),
        micro_batches=(1,), tp_sizes=(1,), layer_window=1, stages=(2,),
    )  # fmt: skip
    spec = replace(GOLDEN, shape=replace(GOLDEN.shape, layers=4))
    tight = cluster("l4", 1, 2).with_capacity(8 * 2**30)
    best = np.inf
    for setting in candidates(spec, tight, 4, space):
        policies = space.policies(setting.dp)
        cells = [(n, c) for n in space.layer_counts(setting) for c in range(n + 1)]
        choices = [policies.stage(k, n, c, setting) for n, c in cells for k in range(len(policies))]
        for first in choices:
            for last in choices:
                if first.layers + last.layers == 4:
                    plan = Plan(spec, tight.size, 4, setting.accumulation, (first, last))
                    if not shortfalls(plan, tight):
                        best = min(best, predict(plan, tight).prediction.iteration_s)
    assert tune(spec, tight, 4, space).prediction.iteration_s == pytest.approx(best, rel=1e-12)


def test_larger_spaces_and_larger_devices_are_never_slower():
    spec, where = gpt("2.7b", seq_len=2048), cluster("l4", 1, 4)
    times = [
        search(spec, where, 64, replace(space, imbalance=True)).plan.prediction.iteration_s
        for space in list(cumulative_spaces().values())[:4]
    ]
    assert times == sorted(times, reverse=True)
    larger = search(spec, where.with_capacity(2 * where.capacity_bytes), 64, SMALL).plan
    assert larger.prediction.iteration_s <= search(spec, where, 64, SMALL).plan.prediction.iteration_s


def test_alpha_sampling_is_never_better_than_the_front():
    full = tune(GOLDEN, L4, 32, SMALL)
    sampled_plan = tune(GOLDEN, L4, 32, SMALL, selection=Selection("alpha", 5))
    assert sampled_plan.prediction.iteration_s >= full.prediction.iteration_s


def test_a_failed_candidate_does_not_end_the_search(monkeypatch):
    original = IntraSearch.table

    def failing(self):
        if self.setting.stages == 1:
            raise FloatingPointError("a cell went wrong")
        return original(self)

    monkeypatch.setattr(IntraSearch, "table", failing)
    found = search(GOLDEN, L4, 32, SMALL)
    assert len(found.plan.stages) == 2
    failed = [c for c in found.candidates if c.outcome == "failed"]
    assert failed
    assert failed[0].detail == "FloatingPointError: a cell went wrong"
    monkeypatch.setitem(tuner.SOLVERS, "milp", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="every candidate failed; the first one: "):
        tune(GOLDEN, L4, 32, SMALL)


def test_a_model_that_fits_nowhere_is_told_by_how_much():
    small = L4.with_capacity(8 * 2**30)
    with pytest.raises(
        NothingFits, match=r"fits nowhere on l4 1x2: the leanest candidate .* misses [\d,]+ MiB"
    ) as error:
        tune(GOLDEN, small, 32, SMALL)
    needed = small.capacity_bytes + error.value.missing_bytes / small.usable
    assert tune(GOLDEN, L4.with_capacity(1.0001 * needed), 32, SMALL)
    with pytest.raises(NothingFits):
        tune(GOLDEN, L4.with_capacity(0.9999 * needed), 32, SMALL)


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="global_batch is 7: no micro-batch"):
        tune(GOLDEN, L4, 7)
    with pytest.raises(ValueError, match="solver is 'cbc'"):
        tune(GOLDEN, L4, 32, solver="cbc")
    with pytest.raises(ValueError, match="checkpointing is 'some'"):
        Space("some")


def test_tp_that_does_not_divide_is_never_a_candidate():
    spec = tiny(heads=4)
    assert {item.tp for item in candidates(spec, cluster("l4", 1, 8), 64, FULL)} == {1, 2, 4}
