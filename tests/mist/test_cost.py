"""Communication, operators, schedule and memory: known values and the direction of every knob."""

from dataclasses import replace

import numpy as np
import pytest

from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import evaluate, predict
from paperlab.mist.cost.memory import Position, moments, peaks
from paperlab.mist.cost.operators import read_rows
from paperlab.mist.cost.schedule import block_times, stage_times, transfers
from paperlab.mist.cost.setting import Policies, Setting
from paperlab.mist.plan import Plan, StagePlan
from tests.mist.small import GOLDEN

L4 = cluster("l4", 1, 4)
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)


def policies(**columns):
    rows = [
        StagePlan(1, 0, 1, 2, 1, **dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]
    return Policies.of(*rows)


def setting(**changes):
    return replace(Setting(GOLDEN, L4, 1, 2, 1, 16, 2), **changes)


def test_collectives_follow_the_formula():
    links, gib = L4.links, 2**30
    assert links.all_gather_s(gib, 1, 2) == pytest.approx(1 / 2.964 / 2 + 1e-4)
    assert links.reduce_scatter_s(gib, 1, 4) == pytest.approx(1.1 * (1 / 4.1635 * 0.75 + 4e-4))
    assert links.all_reduce_s(gib, 1, 4) == pytest.approx(2.1 * (1 / 4.1635 * 0.75 + 4e-4))
    assert links.all_gather_s(gib, 1, 1) == 0
    assert links.all_gather_s(96.015625 * 2**20, 1, 2) == pytest.approx(15.9174e-3, abs=1e-7)  # the artifact's value
    assert list(links.to_device_s([0, gib])) == [0.0, pytest.approx(1 / 5.7546 + 4e-4)]
    with pytest.raises(ValueError, match="no collective of 8 nodes x 8 devices"):
        links.all_gather_s(gib, 8, 8)


def test_groups_span_nodes_first():
    wide = replace(setting(), cluster=cluster("l4", 4, 8), dp=8, tp=2)
    assert (wide.nodes, wide.dp_group) == (2, (2, 4))
    with pytest.raises(ValueError, match="does not fill nodes"):
        _ = replace(wide, dp=6).nodes


def test_bad_tables_are_told(tmp_path):
    path = tmp_path / "operators.csv"
    path.write_text("kind,shape,forward_ms,backward_ms\nnorm,12,fast,1\n")
    with pytest.raises(ValueError, match=r"operators.csv: row 2 .*fast"):
        read_rows(path)
    with pytest.raises(ValueError, match="unknown cluster 'h100'; known: a100, l4"):
        cluster("h100", 1, 8)


@pytest.mark.parametrize("name", ["weight", "grad", "optimizer", "activation"])
def test_more_offload_never_takes_device_memory_and_never_saves_transfer(name):
    columns = {f"{name}_offload": RATIOS, "zero": (1,) * 5}
    if name == "weight":
        columns["grad_offload"] = (0.5,) * 5
    found = policies(**columns)
    for position in (Position(12, 1, True, False), Position(12, 0, False, True)):
        forward, backward = peaks(setting(), found, position, [0, 3])
        # The first step to a positive ratio brings buffers; from there on memory only falls.
        assert (np.diff(forward[:, 1:]) <= 0).all()
        assert (np.diff(backward[:, 1:]) <= 0).all()
    moves = transfers(setting(), found)
    moved = [getattr(moves, field) for field in moves.__dataclass_fields__ if field.endswith(("_in_s", "_out_s"))]
    assert all((np.diff(np.broadcast_to(seconds, 5)) >= 0).all() for seconds in moved)
    stable, extra = stage_times(setting(), block_times(setting(), found), 12, [0], first=True, last=False)
    assert (np.diff(stable + extra) >= -1e-12).all()


def test_more_checkpointing_never_takes_memory_and_never_saves_time():
    found = policies(zero=(1,))
    counts = np.arange(13)
    for stage, position in enumerate((Position(12, 1, True, False), Position(12, 0, False, True))):
        peak = np.maximum(*peaks(setting(), found, position, counts))[:, 0]
        # One recomputed block alone brings its recomputation; from then on every further one helps or is neutral.
        assert (np.diff(peak[1:]) <= 1e-6).all()
        stable, _ = stage_times(setting(), block_times(setting(), found), 12, counts, first=stage == 0, last=stage == 1)
        assert (np.diff(stable[:, 0]) > 0).all()


def test_higher_zero_levels_never_take_more_state():
    def state(level):
        plan = Plan(GOLDEN, L4.size, 64, 16, (StagePlan(24, 24, 1, 4, 1, zero=level),))
        return sum(
            float(np.squeeze(size)) for name, size in evaluate(plan, L4)[0].worst.parts.items()
            if name in ("weights", "gradients", "optimizer states")
        )  # fmt: skip

    sizes = [state(level) for level in (0, 1, 2, 3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] / sizes[3] == pytest.approx(4)


def test_parts_add_up_and_every_moment_is_named():
    found = policies(zero=(1, 3), grad_offload=(0.0, 0.5))
    for moment in moments(setting(), found, Position(12, 1, True, False), [0, 5, 12]):
        total = sum(np.broadcast_to(size, (3, 2)) for size in moment.parts.values())
        np.testing.assert_allclose(np.broadcast_to(moment.bytes, (3, 2)), total)
        assert moment.phase in ("forward", "backward")


def test_a_thousand_random_configurations_evaluate_as_one_by_one():
    generator = np.random.default_rng(0)
    ratios = generator.choice(RATIOS, (1000, 4))
    found = Policies(generator.integers(0, 4, 1000), *ratios.T)
    where, position = setting(), Position(11, 1, True, False)
    counts = np.arange(12)
    stable, extra = stage_times(where, block_times(where, found), 11, counts, first=True, last=False)
    forward, backward = peaks(where, found, position, counts)
    for k in range(0, 1000, 20):
        count = int(generator.integers(0, 12))
        stage = found.stage(k, 11, count, where)
        plan = Plan(GOLDEN, L4.size, 32, 16, (stage, StagePlan(13, 0, 1, 2, 1)))
        one = predict(plan, L4).prediction
        assert one.stable_s[0] == pytest.approx(stable[count, k], rel=1e-12)
        assert one.extra_s[0] == pytest.approx(extra[count, k], rel=1e-9, abs=1e-12)
        assert one.forward_peak_bytes[0] == pytest.approx(forward[count, k], rel=1e-12)
        assert one.backward_peak_bytes[0] == pytest.approx(backward[count, k], rel=1e-12)


def test_one_micro_batch_is_first_and_last_at_once():
    found = policies(zero=(1,))
    # A batch at which compute, and with it accumulation, is longer than every collective beside it.
    many, one = (setting(accumulation=g, stages=1, micro_batch=8) for g in (2, 1))
    stable, extra = stage_times(many, block_times(many, found), 24, [0], first=True, last=True)
    single, none = stage_times(one, block_times(one, found), 24, [0], first=True, last=True)
    assert none == 0
    accumulate = sum(one.layers[k].accumulate_s * n for k, n in (("block", 24), ("embedding", 1), ("head", 1))) / 2
    assert single == pytest.approx(stable + extra - accumulate, rel=1e-3)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_stages_of_few_layers_count_every_layer_once(layers):
    """Without transfers a stage takes as many times its compute as it has layers."""
    found = policies(zero=(0,))
    where = replace(setting(), dp=1)
    block = where.layers["block"]
    plain = block.forward_s + block.backward_s + block.accumulate_s * where.accumulated_share
    for count in range(layers + 1):
        stable, _ = stage_times(where, block_times(where, found), layers, [count], first=False, last=False)
        assert stable[0, 0] == pytest.approx(layers * plain + count * block.forward_s)
