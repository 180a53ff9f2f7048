"""Reconfigurations and write-through in the cluster: exclusive, accounted for, logged."""

from __future__ import annotations

import pytest

from paperlab.serving.cluster import Lane
from paperlab.serving.work import Chunk, Compute, Copy, Decision, Reconfigure
from tests.serving import doubles

LANES = (Lane("a", "gpu0"), Lane("b", "gpu0"), Lane("in", "link", "copy"))


def test_prompts_written_through_lie_on_the_host_and_leave_the_device_free():
    cluster = doubles.cluster(blocks=8, lanes=LANES, host=8)
    first, second = (cluster.arrive(item) for item in doubles.requests((9, 3), (6, 1)))
    cluster.begin("a", Decision(Compute((Chunk(first, 9), Chunk(second, 6)), target="host")))
    assert (cluster.pools["gpu0"].used, cluster.pools["host"].used) == (0, 5)
    cluster.check()
    cluster.finish("a")
    assert list(cluster.parked) == [0]  # the other one wanted a single token and is done
    assert (first.pool, first.computed, first.generated) == ("host", 9, 1)
    assert cluster.log.steps[0].target == "host"
    cluster.begin("in", Decision(Copy((first,), "gpu0")))
    cluster.finish("in")
    assert (cluster.pools["gpu0"].used, cluster.pools["host"].used) == (3, 0)
    cluster.check()


def test_only_whole_prompts_are_written_through():
    cluster = doubles.cluster(lanes=LANES, host=8)
    sequence = cluster.arrive(doubles.requests((9, 3))[0])
    with pytest.raises(AssertionError, match="whole prompts"):
        cluster.begin("a", Decision(Compute((Chunk(sequence, 4),), target="host")))


def test_a_reconfiguration_is_alone_on_its_device_and_logged():
    cluster = doubles.cluster(lanes=LANES, host=8)
    cluster.configurations["gpu0"] = "P2"
    sequence = cluster.arrive(doubles.requests((9, 3))[0])
    cluster.begin("a", Decision(Compute((Chunk(sequence, 9),))))
    with pytest.raises(AssertionError, match="busy device"):
        cluster.begin("b", Decision(Reconfigure("T2")))
    cluster.finish("a")
    cluster.begin("b", Decision(Reconfigure("T2")))
    with pytest.raises(AssertionError, match="while gpu0 is reconfigured"):
        cluster.begin("a", Decision(Compute((Chunk(sequence, 1),))))
    cluster.now_s = 1.5
    cluster.finish("b")
    assert cluster.configurations == {"gpu0": "T2"}
    assert cluster.log.switches == [("b", 0.0, 1.5, "P2", "T2")]
    assert cluster.log.end_s == 1.5
