"""Part B: one trace, equal GPUs, four ways to use them: Nexus, chunked prefill, Seesaw, and its static layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from paperlab.across.one_physics import NodeDeployment
from paperlab.lab.workers import in_processes
from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import kv_tokens
from paperlab.seesaw.search import LEAST_KV_TOKENS, resharding_runs, static_runs
from paperlab.seesaw.workloads import length_source
from paperlab.serving.cost import ModelCost
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import fixed
from paperlab.serving.policy import Limits, make_policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Simulator, about, build_cluster
from paperlab.serving.timing import resources
from paperlab.serving.workload import Workload, workload
from paperlab.transformer import ModelShape, preset

NEXUS, CHUNKED, SEESAW, STATIC = "Nexus", "vLLM-like", "Seesaw", "static layout"
POLICY = {NEXUS: "nexus", CHUNKED: "vllm-like"}
SYSTEMS = (NEXUS, CHUNKED, SEESAW, STATIC)


@dataclass(frozen=True)
class Scene:
    """A model on `gpus` GPUs of one kind; its requests' lengths are `arxiv`, `sharegpt`, or such as `2000/50`."""

    model: str
    device: str
    gpus: int
    lengths: str

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        return preset(self.model)

    @property
    def node(self) -> Node:
        """The node of its GPUs."""
        return node(self.device)

    def trace(self, rate_per_s: float | None, requests: int, seed: int) -> Workload:
        """Return the trace that every system is given; without a rate all requests are there at time 0."""
        arrivals = "at_once" if rate_per_s is None else "poisson"
        prompt, _, output = self.lengths.partition("/")
        source = fixed(int(prompt), int(output)) if output else length_source(self.lengths)
        return workload(source, rate_per_s, requests, seed, arrivals)


@dataclass(frozen=True)
class Server:
    """One way to use the GPUs: its system, what a reader calls it, and a function that serves a trace."""

    system: str
    label: str
    serve: Callable[[Workload], EventLog]


TUNING_SEED = 1000  # of the trace by which replica sizes are chosen, none of those that are reported


def replicas(scene: Scene, system: str, link_contention: float = 1.0) -> list[Server]:
    """Return Nexus or chunked prefill on every size of replicas."""
    return [
        Server(system, f"{scene.gpus // tp} x TP {tp}", _Replicas(scene, POLICY[system], tp, link_contention).serve)
        for tp in replica_sizes(scene)
    ]


def best_replicas(scene: Scene, system: str, rate_per_s: float | None, requests: int) -> Server:
    """Return the replicas with the lowest mean normalized latency at a rate, or most throughput where all is at once.

    They are compared on a trace of their own.
    """
    work = scene.trace(rate_per_s, requests, TUNING_SEED)
    column = "makespan_s" if rate_per_s is None else "normalized_latency_mean_s"
    return min(replicas(scene, system), key=lambda server: float(server.serve(work).summary()[column].iloc[0]))


def best_layout(scene: Scene, system: str) -> Server:
    """Return Seesaw's best pair of different layouts, or the best static one, by its search's forecast.

    The forecast is of a sample of 200 requests that are all there.
    """
    sample = scene.trace(None, 200, TUNING_SEED).requests
    runs = resharding_runs if system == SEESAW else static_runs
    candidates = [run for run in runs(scene.shape, scene.node, scene.gpus) if run.decode != run.prefill]
    best = min(candidates, key=lambda run: estimate_s(run, sample))
    return Server(system, best.label, best.simulate)


def replica_sizes(scene: Scene) -> list[int]:
    """Return the tensor-parallel sizes that divide the GPUs and the model, and hold it with room for sequences."""
    sizes = []
    for tp in (size for size in range(1, scene.gpus + 1) if scene.gpus % size == 0):
        try:
            ModelCost(scene.shape, "fp16", tp)
        except ValueError:
            continue
        if kv_tokens(scene.shape, scene.node, Layout(tp=tp)) >= LEAST_KV_TOKENS:
            sizes.append(tp)
    return sizes


@dataclass(frozen=True)
class _Replicas:
    """Equal replicas of `tp` GPUs, each with a scheduler of its own."""

    scene: Scene
    policy: str
    tp: int
    link_contention: float = 1.0

    def serve(self, work: Workload) -> EventLog:
        """Deal the trace to the replicas, run each, and return one log of all."""
        limits = Limits()
        setup = NodeDeployment.of(self.scene.shape, self.scene.node, self.tp, limits, self.link_contention)
        parts = deal(work.requests, self.scene.gpus // self.tp)
        logs = [self._run(setup, replace(work, requests=part)) for part in parts if part]
        return merged(logs)

    def _run(self, setup: NodeDeployment, work: Workload) -> EventLog:
        policy = make_policy(self.policy, limits=setup.limits)
        policy.bind(setup)
        log = EventLog(about=about(policy, setup, work) | {"evidence": "simulated"})
        cluster = build_cluster(policy, setup, log)
        devices = {lane.resource: setup.device_model for lane in policy.lanes if lane.kind == "compute"}
        links = {"host": setup.host_link, "peer": setup.peer_link}
        return Simulator(policy, cluster, resources(devices, links, setup.block_bytes)).run(work.requests)


def deal(requests: Iterable[Request], replicas: int) -> list[tuple[Request, ...]]:
    """Give each request, in order of arrival, to the replica with the fewest prompt tokens so far.

    A dispatcher knows prompts and not outputs; the first of equals gets it.
    """
    dealt: list[list[Request]] = [[] for _ in range(replicas)]
    tokens = [0] * replicas
    for request in requests:
        least = tokens.index(min(tokens))
        dealt[least].append(request)
        tokens[least] += request.prompt_tokens
    return [tuple(part) for part in dealt]


def merged(logs: list[EventLog]) -> EventLog:
    """Return one log of replicas that ran side by side, for metrics over all requests."""
    everything = EventLog(about=logs[0].about)
    for log in logs:
        everything.requests |= log.requests
    everything.steps = sorted((step for log in logs for step in log.steps), key=lambda step: step.end_s)
    everything.notes = sorted((note for log in logs for note in log.notes), key=lambda note: note.time_s)
    return everything


COLUMNS = (
    "ttft_mean_s", "ttft_p95_s", "tbt_mean_s", "tbt_p95_s", "tbt_p99_s", "normalized_latency_mean_s",
    "normalized_latency_p95_s", "requests_per_s", "output_tokens_per_s", "makespan_s", "finished", "preemptions",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One trace on one server."""

    scene: Scene
    server: Server
    rate_per_s: float | None
    load: float | None
    requests: int
    seed: int

    def row(self) -> dict[str, object]:
        """Serve it and return a row of metrics."""
        log = self.server.serve(self.scene.trace(self.rate_per_s, self.requests, self.seed))
        found = log.summary().iloc[0]
        scene = self.scene
        head = {"model": scene.model, "device": scene.device, "gpus": scene.gpus, "lengths": scene.lengths}
        head |= {"load": self.load, "rate_per_s": self.rate_per_s, "seed": self.seed}
        head |= {"system": self.server.system, "layout": self.server.label}
        return {**head, **{name: float(found[name]) for name in COLUMNS}, "reshardings": len(log.switches)}


def contest(scene: Scene, loads: Sequence[float], requests: int, seeds: Sequence[int], workers: int) -> pd.DataFrame:
    """Return a row of metrics per load, seed and system; load NaN: all requests at once.

    A load is a rate over the throughput of Nexus's best replicas when all requests of the tuning trace are there.
    Sizes of replicas are chosen for throughput in the one case, for latency at the middle load in the other.
    """
    tuning = max(8, requests // 2)
    offline = {system: best_replicas(scene, system, None, tuning) for system in POLICY}
    full = offline[NEXUS].serve(scene.trace(None, tuning, TUNING_SEED)).summary().requests_per_s.iloc[0]
    middle = full * sorted(loads)[len(loads) // 2]
    online = {system: best_replicas(scene, system, middle, tuning) for system in POLICY}
    layouts = {system: best_layout(scene, system) for system in (SEESAW, STATIC)}
    cells = [
        Cell(scene, {**known, **layouts}[system], None if load is None else load * full, load, requests, seed)
        for known, points in ((offline, [None]), (online, loads))
        for load in points
        for seed in seeds
        for system in SYSTEMS
    ]
    return pd.DataFrame(in_processes(Cell.row, cells, workers))


def offline_map(scenes: Sequence[Scene], requests: int, workers: int) -> pd.DataFrame:
    """Return a row per scene and system with all requests at once; of replicas the fastest size on the trace itself."""
    cells = [
        Cell(scene, server, None, None, requests, 0)
        for scene in scenes
        for server in (
            *replicas(scene, NEXUS), *replicas(scene, CHUNKED), best_layout(scene, SEESAW), best_layout(scene, STATIC)
        )
    ]  # fmt: skip
    frame = pd.DataFrame(in_processes(Cell.row, cells, workers))
    best = frame.groupby(["model", "lengths", "system"], sort=False).requests_per_s.idxmax()
    return frame.loc[best].sort_index().reset_index(drop=True)


def link_sensitivity(scene: Scene, requests: int, seed: int) -> pd.DataFrame:
    """Return Nexus's offline throughput by size of replicas, where its lanes' all-reduces meet or never do."""
    rows = []
    for contention in (0.0, 1.0):
        for server in replicas(scene, NEXUS, contention):
            row = Cell(scene, server, None, None, requests, seed).row()
            rows.append({"link_contention": contention, **row})
    return pd.DataFrame(rows)
