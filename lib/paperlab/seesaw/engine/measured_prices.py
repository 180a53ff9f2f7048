"""What the simulator has to know of this machine to predict the engine: rates fitted to the ranks' own spans.

A stage's time is a sum of terms, each a rate times what the paper's Eq. 1 counts (FLOPs, bytes of weights, of keys
and values, of collectives) or what it leaves out (overheads per micro-batch, layer and call). All rates are fitted
together, to micro-batches of all layouts and kinds seen; none is chosen by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import Layout, Shard, layer_matrices
from paperlab.seesaw.simulation import build_cluster
from paperlab.serving.cluster import Job
from paperlab.serving.events import EventLog
from paperlab.serving.policy import Policy
from paperlab.serving.simulator import Simulator
from paperlab.serving.timing import Pipeline, Running, StagePrices, Timing
from paperlab.serving.work import StepShape
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape

TERMS = ("micro_batch", "layer", "flops", "weight_bytes", "pair_flops", "kv_bytes", "calls", "call_bytes", "head_flops")
FEWEST_SPANS = 30


def demands(shard: Shard, step: StepShape) -> NDArray[np.float64]:
    """Return what a micro-batch asks of one rank, in the order of `TERMS`."""
    model, tp, layers = shard.model, shard.layout.tp, len(shard.layers)
    weights = layers * layer_matrices(model) / tp
    context = step.prefill_context + step.prefill_tokens + step.decode_context
    kv_bytes = shard.kv_token_bytes("fp32") * context
    calls = (2 * layers + shard.is_first) * (tp > 1)
    pairs = step.prefill_pairs + step.decode_context
    return np.array([
        1, layers, 2 * step.tokens * weights, 4 * weights, 4 * layers * model.q_width / tp * pairs, kv_bytes, calls,
        4 * calls * step.tokens * model.hidden, 2 * shard.is_last * step.logits * len(shard.vocab) * model.hidden,
    ], dtype=float)  # fmt: skip


@dataclass(frozen=True)
class MeasuredRates:
    """Seconds per unit of each of `TERMS`; seconds per micro-batch between ranks and driver; bytes per second.

    `fit_error` is the mean relative error over the fitted micro-batches.
    """

    seconds_per: tuple[float, ...]
    dispatch_s: float
    load_Bps: float
    swap_out_Bps: float
    swap_in_Bps: float
    fit_error: float


def fit(traces: Sequence[Trace], model: ModelShape) -> MeasuredRates:
    """Fit all rates to some runs of the engine, in fp32.

    Micro-batches that recur count with their median, by non-negative least squares of relative errors; then all rates
    are scaled so that the seconds add up to those measured, since a busy machine's stragglers belong to the mean.

    Raises:
        ValueError: fewer than 30 different micro-batches at a stage.
    """
    from scipy.optimize import nnls

    found: dict[tuple[str, int, StepShape], list[float]] = {}
    for trace in traces:
        for layout, stage, step, span_s in trace.stage_times():
            found.setdefault((layout, stage, step), []).append(span_s)
    if len(found) < FEWEST_SPANS:
        raise ValueError(f"fit: {len(found)} different micro-batches at a stage; at least {FEWEST_SPANS} are needed")
    layouts = {name: Layout.parse(name) for name, _, _ in found}
    shards = {(name, stage): layouts[name].shard(model, stage * layouts[name].tp) for name, stage, _ in found}
    terms = np.array([demands(shards[name, stage], step) for name, stage, step in found])
    times = np.array([np.median(seconds) for seconds in found.values()])
    rates, _ = nnls(terms / times[:, None], np.ones(len(times)))
    error = np.abs(terms @ rates / times - 1).mean()
    often = np.array([len(seconds) for seconds in found.values()])
    rates *= sum(map(sum, found.values())) / (terms @ rates * often).sum()
    load_Bps, out_Bps, in_Bps = (_rate(traces, kind) for kind in ("load", "swap-out", "swap-in"))
    return MeasuredRates(tuple(rates.tolist()), _dispatch_s(traces), load_Bps, out_Bps, in_Bps, float(error))


class MeasuredPrices:
    """The simulator's `StagePrices` of one layout."""

    def __init__(self, model: ModelShape, layout: Layout, rates: MeasuredRates) -> None:
        self.stages, self._rates = layout.pp, rates
        self._shards = [layout.shard(model, stage * layout.tp) for stage in range(layout.pp)]
        self._seconds_per = np.array(rates.seconds_per)

    @property
    def load_s(self) -> float:
        """Seconds to reload the largest shard."""
        return max(shard.weight_bytes("fp32") for shard in self._shards) / self._rates.load_Bps

    def compute_s(self, step: StepShape) -> list[float]:
        """Return the seconds of a micro-batch at each stage; the way from and to the driver counts at the first."""
        seconds = [float(demands(shard, step) @ self._seconds_per) for shard in self._shards]
        seconds[0] += self._rates.dispatch_s
        return seconds

    def write_through_s(self, step: StepShape) -> list[float]:
        """Return the seconds of writing the step's keys and values at each stage."""
        rate = self._rates.swap_out_Bps
        return [step.prefill_tokens * shard.kv_token_bytes("fp32") / rate for shard in self._shards]

    def tail_s(self, step: StepShape) -> float:
        """Return the seconds of the last layer's part of it."""
        return max(s / len(shard.layers) for s, shard in zip(self.write_through_s(step), self._shards, strict=True))


class HostLink(Timing):
    """Swap-ins and swap-outs of one replica: every rank copies its part, the largest part counts."""

    def __init__(self, block_bytes: int, bandwidth_Bps: float, latency_s: float) -> None:
        self._block_bytes, self._bandwidth_Bps, self._latency_s = block_bytes, bandwidth_Bps, latency_s

    def begin(self, lane: str, job: Job, now_s: float) -> Running:
        """Time a copy."""
        blocks = sum(len(part) for part in job.incoming)
        return Running(self._latency_s + blocks * self._block_bytes / self._bandwidth_Bps, now_s)


def simulate(policy: Policy, model: ModelShape, rates: MeasuredRates, like: EventLog, work: Workload) -> EventLog:
    """Serve `work` on a virtual clock by fitted rates, with the tiers of an engine's log; the result is `simulated`.

    `policy` must be fresh; it is the engine's own kind, so the schedulers exist once.
    """
    about = like.about
    size = about["block_size"]
    log = EventLog(about={"evidence": "simulated", "system": policy.name, "layout": about["layout"]})
    cluster = build_cluster(policy, about["kv_blocks"], about["host_blocks"], size, model.max_positions, log)
    layouts = [Layout.parse(name).replica for name in about["layout"].split("→")]
    prices: dict[str, StagePrices] = {str(layout): MeasuredPrices(model, layout, rates) for layout in layouts}
    part = size * max(shard.kv_token_bytes("fp32") for shard in layouts[-1].shards(model))
    timings: dict[str, Timing] = {}
    for lane in policy.lanes:
        if lane.resource in timings:
            continue
        if lane.kind == "compute":
            timings[lane.resource] = Pipeline(prices, cluster.configurations[lane.resource])
        else:
            rate = rates.swap_in_Bps if lane.name.endswith("in") else rates.swap_out_Bps
            timings[lane.resource] = HostLink(part, rate, rates.dispatch_s)
    # All are there before the first decision, as in the engine. `Simulator.run` itself offers work after each arrival,
    # also of those at one time; to change that would change Nexus's offline makespans (by 0.1 %).
    for request in work.requests:
        cluster.arrive(request)
    return Simulator(policy, cluster, timings).run(())


def _dispatch_s(traces: Sequence[Trace]) -> float:
    """Return the median seconds that a job takes beyond its stages' own, of jobs that nothing else could hold up."""
    beyond = [extra_s for trace in traces for extra_s in trace.beyond_stages()]
    return float(np.median(beyond)) if beyond else 0.0


def _rate(traces: Sequence[Trace], kind: str) -> float:
    """Return bytes over seconds of all spans of a kind; unlimited where there was none."""
    spans = [span for trace in traces for span in trace.spans if span.kind == kind]
    seconds = sum(span.end_s - span.start_s for span in spans)
    return sum(span.moved_bytes for span in spans) / seconds if seconds else 1e12
