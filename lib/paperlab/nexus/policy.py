"""Nexus as a scheduler of two lanes on one device, and its ablations, which switch one part off (§4, §6.5).

Both lanes work on one pool: finishing a prompt moves nothing, its sequence merely turns up among those to decode. The
prefill lane's last chunk yields the first token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from paperlab.nexus.belief import Belief, published_belief
from paperlab.nexus.control import Choice, Control, Proactive, Reactive, Situation, Static
from paperlab.nexus.layouts import Layout
from paperlab.nexus.scheduler import ORDERS, plan_decode, plan_prefill
from paperlab.nexus.settings import Settings
from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.deployment import Deployment
from paperlab.serving.policy import DEVICE, BatchBuilder, Limits, Policy, register
from paperlab.serving.work import IDLE, Compute, Decision, StepShape, step_shape

PEER = {"prefill": "decode", "decode": "prefill"}


class ControlRecord(NamedTuple):
    """One look of the control at the split."""

    time_s: float
    lane: str  # whose iteration was about to start
    kv_usage: float
    target: str
    searched_percent: float  # R_p that the search came to
    layout_percent: float  # R_p in force afterwards
    switched: bool
    feasible: bool
    evaluations: int


@register
class Nexus(Policy):
    """Two lanes, shortest prompts first with aging, and a split that follows the forecast.

    `records` holds every look at the split. The log gets notes: `layout` for a switch, `target` when the favored phase
    changes, `barrier` when a lane waits for one.
    """

    name = "nexus"
    lanes = (Lane("prefill", DEVICE), Lane("decode", DEVICE))
    order: ClassVar[str] = "spf"
    control_kind: ClassVar[str] = "proactive"

    def __init__(
        self, limits: Limits | None = None, *, order: str | None = None, belief: Belief | None = None, **options: Any
    ) -> None:
        """Set up before `bind`.

        Args:
            limits: caps of one iteration, for each lane.
            order: of prompts, `spf` or `fcfs`; by default the class's.
            belief: the cost model's curves; by default fitted to what the paper states.
            options: fields of `Settings`.

        Raises:
            ValueError: an unknown or impossible option.
        """
        super().__init__(limits)
        self.settings = Settings.of(options)
        self.prompt_order = order or self.order
        if self.prompt_order not in ORDERS:
            raise ValueError(f"order is {order!r}; use one of {', '.join(ORDERS)}")
        self.control = self._make_control(belief)
        self.records: list[ControlRecord] = []
        self.layout: Layout | None = None
        self._awaited: Layout | None = None  # decided, and waiting for the barrier
        self._target = ""

    def bind(self, deployment: Deployment) -> None:
        """Prepare cost model and layouts, and forget what an earlier run left."""
        self.layout = self.control.bind(deployment)
        self.records = []
        self._awaited, self._target = None, ""

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Plan the lane's batch, let the control look at the split, and start with the lane's share of it."""
        if self.layout is None:
            raise RuntimeError(f"{self.name}: call bind(deployment) before the first request")
        notes = self._pass_barrier(cluster)
        if self._awaited is not None:
            return IDLE
        batch = self._plan(lane, cluster)
        if not batch.chunks:
            return replace(batch.decision(), notes=notes)
        peer = self._peer_shape(lane, cluster)
        share = 1.0 if peer is None and self.settings.idle_peer_full else self.layout.share(lane)
        if peer is not None:
            notes += self._control(lane, step_shape(batch.chunks), peer, cluster)
            share = self.layout.share(lane)
        if self.settings.barrier and self._must_wait(share, cluster):
            return Decision(notes=notes)
        return replace(batch.decision(share), notes=notes)

    def _make_control(self, belief: Belief | None) -> Control:
        if self.control_kind == "proactive":
            return Proactive(self.settings, belief or published_belief(self.settings.curve, self.settings.tile_rows))
        return Static(self.settings) if self.control_kind == "static" else Reactive(self.settings)

    def _plan(self, lane: str, cluster: Cluster) -> BatchBuilder:
        if lane == "prefill":
            return plan_prefill(cluster, lane, self.limits, self.prompt_order, self.settings)
        return plan_decode(cluster, lane, self.limits, self.settings)

    def _peer_shape(self, lane: str, cluster: Cluster) -> StepShape | None:
        """Return what the other lane runs, or would start now; None where it has nothing to do."""
        peer = PEER[lane]
        if peer in cluster.jobs:
            return cluster.jobs[peer].shape
        chunks = self._plan(peer, cluster).chunks
        return step_shape(chunks) if chunks else None

    def _control(self, lane: str, own: StepShape, peer: StepShape, cluster: Cluster) -> tuple[tuple[str, str], ...]:
        """Ask the control, record what it said and adopt it; returns notes for the log."""
        assert self.layout is not None
        prefill, decode = (own, peer) if lane == "prefill" else (peer, own)
        kv_usage = cluster.pool_of(lane).usage
        choice = self.control.propose(cluster, Situation(prefill, decode, kv_usage, self.layout))
        if choice is None:
            return ()
        notes: tuple[tuple[str, str], ...] = (("target", choice.target),) if choice.target != self._target else ()
        self._target, switched = choice.target, choice.layout != self.layout
        if switched and self.settings.barrier and cluster.jobs:
            self._awaited = choice.layout
            notes += (("barrier", f"{lane} waits for {PEER[lane]}"),)
        elif switched:
            notes += self._adopt(choice.layout)
        self._record(lane, kv_usage, choice, switched, cluster)
        return notes

    def _record(self, lane: str, kv_usage: float, choice: Choice, switched: bool, cluster: Cluster) -> None:
        percent, found = choice.layout.percent, (choice.feasible, len(choice.trace))
        looked = (cluster.now_s, lane, kv_usage, choice.target, choice.prefill_percent)
        self.records.append(ControlRecord(*looked, percent, switched, *found))

    def _adopt(self, layout: Layout) -> tuple[tuple[str, str], ...]:
        self.layout = layout
        return (("layout", f"prefill {layout.prefill_sms} of {layout.sms} multiprocessors"),)

    def _pass_barrier(self, cluster: Cluster) -> tuple[tuple[str, str], ...]:
        """Adopt a layout that was waiting, once no lane is busy."""
        if self._awaited is None or cluster.jobs:
            return ()
        layout, self._awaited = self._awaited, None
        return self._adopt(layout)

    def _must_wait(self, share: float, cluster: Cluster) -> bool:
        """With barriers, a lane starts neither before an awaited switch nor while the peer holds part of its share."""
        if self._awaited is not None:
            return True
        held = sum(job.work.share for job in cluster.jobs.values() if isinstance(job.work, Compute))
        return share + held > 1 + 1e-9


@register
class NexusWithoutControl(Nexus):
    """Shortest prompts first on a static split: `Nexus-Wo-SC` of Fig. 13; `split_percent` sets the split."""

    name = "nexus-wo-sc"
    control_kind = "static"


@register
class FcfsWithControl(Nexus):
    """Prompts first come, first served, with control: `PF-DF-W-SC` of Fig. 13."""

    name = "pf-df-w-sc"
    order = "fcfs"


@register
class FcfsWithoutControl(Nexus):
    """Prompts first come, first served, on a static split: `PF-DF-Wo-SC` of Fig. 13."""

    name = "pf-df-wo-sc"
    order = "fcfs"
    control_kind = "static"


@register
class ReactiveSplit(Nexus):
    """The same lanes and order under feedback from service levels instead of a forecast."""

    name = "reactive"
    control_kind = "reactive"
