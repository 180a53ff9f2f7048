"""Batches, beliefs and short simulations for Nexus's tests."""

from __future__ import annotations

from hypothesis import strategies as st

from paperlab.hardware import device
from paperlab.nexus.belief import KEYS, Belief, Curve, published_belief
from paperlab.nexus.cost_model import CostModel
from paperlab.serving.cost import ModelCost
from paperlab.serving.saturation import Saturation
from paperlab.serving.simulator import Simulator, build_cluster
from paperlab.serving.timing import resources
from paperlab.serving.work import StepShape
from paperlab.transformer import preset
from tests.serving import doubles

SMALL_POOL = 500  # blocks; in larger ones a check after every event takes longer than the run
QWEN = ModelCost(preset("qwen2.5-3b"))


def prefill(tokens=2048, context=2048):
    return StepShape(tokens, context, tokens * context + tokens * (tokens + 1) // 2)


def decode(batch=20, each=6000):
    return StepShape(decode_tokens=batch, decode_context=batch * each, logits=batch)


def cost_model(contention="bytes", belief=None, on="L20"):
    return CostModel(QWEN, device(on), belief or published_belief(), contention)


def uniform(**saturation):
    """A belief with one curve everywhere."""
    return Belief({key: Curve(0.5, Saturation(**saturation)) for key in KEYS})


prefills = st.builds(prefill, st.integers(1, 8192), st.integers(0, 30_000))
decodes = st.builds(decode, st.integers(1, 256), st.integers(1, 20_000))
shares = st.floats(0.04, 1)


def serve(policy, requests, model="qwen2.5-3b", on="L20", **options):
    """Serve `requests` on a virtual clock, check conservation (every event of a small pool), return the log."""
    setup = doubles.setup(model, on, **options)
    policy.bind(setup)
    log = doubles.EventLog()
    cluster = build_cluster(policy, setup, log)
    finish, small = cluster.finish, setup.kv_blocks < SMALL_POOL

    def checked(lane, stopped=()):
        job = finish(lane, stopped)
        if small:
            cluster.check()
        return job

    cluster.finish = checked
    Simulator(policy, cluster, resources({"gpu0": setup.device_model}, {}, setup.block_bytes)).run(requests)
    cluster.check()
    assert cluster.unfinished == 0
    assert cluster.pools["gpu0"].used == 0
    return log
