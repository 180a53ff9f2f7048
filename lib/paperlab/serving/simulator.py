"""Discrete-event execution of a policy at paper scale, on a virtual clock.

The simulator keeps the clock and carries out decisions; how long a job takes is up to the resource it runs on
(`timing`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paperlab.hardware import DeviceSpec
from paperlab.serving.cluster import Cluster, Job
from paperlab.serving.deployment import Deployment, deployment
from paperlab.serving.events import EventLog
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import Limits, Policy, make_policy
from paperlab.serving.request import Request
from paperlab.serving.timing import Running, Timing, resources
from paperlab.serving.work import Decision
from paperlab.transformer import ModelShape

if TYPE_CHECKING:
    from paperlab.serving.workload import Workload


class Stalled(RuntimeError):
    """Requests are left, nothing runs, nothing will arrive, and the policy starts nothing."""


class Simulator:
    """Runs one policy over one list of requests."""

    def __init__(self, policy: Policy, cluster: Cluster, timings: Mapping[str, Timing]) -> None:
        """`timings` are by the lanes' resource."""
        self.policy, self.cluster, self.timings = policy, cluster, timings
        self._running: dict[str, Running] = {}

    def run(self, requests: Sequence[Request], until_s: float = math.inf) -> EventLog:
        """Serve `requests` to the end, or to `until_s`, and return the log.

        Raises:
            Stalled: the policy leaves requests lying though nothing runs and nothing will arrive.
        """
        arrivals = sorted(requests, key=lambda request: (request.arrival_s, request.request_id))
        cluster, upcoming = self.cluster, 0
        while True:
            cluster.dispatch(self._decide, self._start)
            lane, end_s = self._next_end()
            arrival_s = arrivals[upcoming].arrival_s if upcoming < len(arrivals) else math.inf
            now_s = min(end_s, arrival_s)
            if now_s == math.inf or now_s > until_s:
                break
            cluster.now_s = now_s
            if arrival_s <= end_s:
                cluster.arrive(arrivals[upcoming])
                upcoming += 1
            else:
                self._end(lane)
        if now_s == math.inf and cluster.unfinished:
            raise Stalled(f"{self.policy.name}: {cluster.unfinished} requests left and nothing to run")
        return cluster.log

    def _decide(self, lane: str) -> tuple[Decision, float]:
        return self.policy.schedule(lane, self.cluster), 0.0

    def _start(self, lane: str, job: Job) -> None:
        self._running[lane] = self._timing(lane).begin(lane, job, self.cluster.now_s)

    def _end(self, lane: str) -> None:
        del self._running[lane]
        self.cluster.finish(lane)
        self._timing(lane).end(lane, self.cluster.now_s)

    def _timing(self, lane: str) -> Timing:
        return self.timings[self.cluster.lanes[lane].resource]

    def _next_end(self) -> tuple[str, float]:
        lane, end_s = "", math.inf
        for name, item in self._running.items():
            item_end_s = item.end_s
            if item_end_s < end_s:
                lane, end_s = name, item_end_s
        return lane, max(end_s, self.cluster.now_s)


def simulate(
    policy: str | Policy,
    *,
    model: str | ModelShape,
    device: str | DeviceSpec,
    workload: Workload,
    limits: Limits | None = None,
    policy_options: Mapping[str, Any] | None = None,
    until_s: float = math.inf,
    **options: Any,
) -> EventLog:
    """Serve `workload` by `policy` on a virtual clock and return the log; its numbers are `simulated`.

    Args:
        policy: a name such as `nexus` or `vllm-like`, or a policy of your own.
        model: a preset's name or a shape.
        device: a device's name in `data/hardware`, or a specification.
        workload: from `workload(...)` or a loader.
        limits: token budget and sequence cap of an iteration.
        policy_options: what the named policy's constructor takes beside `limits`.
        until_s: stop there; what is unfinished then is counted as such.
        options: other fields of `Deployment`: tp, dtype, kv_tokens, constants …

    Raises:
        ValueError: an unknown name, a model that does not fit, an impossible option, a policy with links of its own.
    """
    limits = limits or Limits()
    setup = deployment(model, device, limits=limits, **options)
    chosen = make_policy(policy, limits=limits, **(policy_options or {})) if isinstance(policy, str) else policy
    chosen.refuse_own_links()
    chosen.bind(setup)
    log = EventLog(about=about(chosen, setup, workload) | {"evidence": "simulated"})
    cluster = build_cluster(chosen, setup, log)
    devices = {lane.resource: setup.device_model for lane in chosen.lanes if lane.kind == "compute"}
    links = {"host": setup.host_link, "peer": setup.peer_link}
    return Simulator(chosen, cluster, resources(devices, links, setup.block_bytes)).run(workload.requests, until_s)


def build_cluster(policy: Policy, setup: Deployment, log: EventLog) -> Cluster:
    """Return an empty cluster with the lanes that `policy` wants and a pool per device, and one of the host."""
    names = {lane.resource for lane in policy.lanes if lane.kind == "compute"}
    pools = [BlockPool(name, setup.kv_blocks, setup.block_size) for name in sorted(names)]
    if any(lane.resource == "host" for lane in policy.lanes):
        pools.append(BlockPool("host", setup.host_blocks, setup.block_size))
    return Cluster(policy.lanes, pools, setup.model.max_positions, log)


def about(policy: Policy, setup: Deployment, workload: Workload) -> dict[str, Any]:
    """Return what describes a run, for `EventLog.about`."""
    return {
        "system": policy.name,
        "lanes": {lane.name: lane.resource for lane in policy.lanes},
        "model": setup.model.name,
        "device": setup.device.name,
        "tp": setup.tp,
        "workload": workload.name,
        "rate_per_s": workload.rate_per_s,
        "seed": workload.seed,
        "kv_blocks": setup.kv_blocks,
        "block_size": setup.block_size,
    }
