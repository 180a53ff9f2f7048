"""Small clusters, workloads and physics for tests."""

from __future__ import annotations

from paperlab.hardware import device
from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.constants import DeviceConstants
from paperlab.serving.deployment import Deployment
from paperlab.serving.events import EventLog
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import Limits, make_policy, policy_names
from paperlab.serving.request import Request
from paperlab.transformer import preset

IDEAL = DeviceConstants(1.0, 1.0, 0.0, source="test")


MAIN = (Lane("main", "gpu0"),)


def cluster(blocks: int = 64, block_size: int = 4, lanes: tuple[Lane, ...] = MAIN, host: int = 0) -> Cluster:
    """Return an empty cluster with one pool per device, and one of the host where `host` has blocks."""
    devices = sorted({lane.resource for lane in lanes if lane.kind == "compute"})
    pools = [BlockPool(name, blocks, block_size) for name in devices]
    if host:
        pools.append(BlockPool("host", host, block_size))
    return Cluster(lanes, pools, max_tokens=10_000, log=EventLog())


def setup(model: str = "qwen2.5-3b", on: str = "L20", **options) -> Deployment:
    """Return a deployment with ideal physics unless `constants` say otherwise."""
    options.setdefault("constants", IDEAL)
    options.setdefault("limits", Limits())
    return Deployment(preset(model), device(on), **options)


def requests(*sizes: tuple[int, int], at: float = 0.0, gap: float = 0.0) -> list[Request]:
    """Return requests of (prompt, output) tokens that arrive from `at` on, `gap` seconds apart."""
    return [Request(index, at + gap * index, *size) for index, size in enumerate(sizes)]


def one_device_policies() -> list[str]:
    """Return the names of every policy that one machine's executors can run, the systems' own included."""
    for name in ("nexus", "seesaw"):
        make_policy(name)  # imports the system's package
    return [name for name in policy_names() if not make_policy(name).own_links]
