"""Who sets the split while requests are served: Nexus's forecast, nobody, or feedback from service levels.

A control proposes a layout whenever a lane is about to start an iteration while the other has work too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from paperlab.nexus.belief import Belief
from paperlab.nexus.cost_model import CostModel
from paperlab.nexus.layouts import Layout, layouts, moves_enough, nearest
from paperlab.nexus.search import Probe, floor_percent, realize, search, target_phase
from paperlab.nexus.settings import Settings
from paperlab.serving.cluster import Cluster
from paperlab.serving.deployment import Deployment
from paperlab.serving.work import StepShape


class Situation(NamedTuple):
    """What a control sees: the two batches (Fig. 7), the pool's usage, and the split in force."""

    prefill: StepShape
    decode: StepShape
    kv_usage: float
    layout: Layout


class Choice(NamedTuple):
    """A proposed layout, equal to the one in force where nothing is to change, and how it came about."""

    layout: Layout
    target: str = ""  # the phase that is favored
    prefill_percent: float = 0.0  # R_p before it was made realizable
    feasible: bool = True  # whether the other phase keeps its slack
    trace: tuple[Probe, ...] = ()


class Control(ABC):
    """Sets the split."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layouts: tuple[Layout, ...] = ()

    def bind(self, deployment: Deployment) -> Layout:
        """Learn the device and return the layout to start with."""
        self.layouts = layouts(deployment.device)
        return nearest(self.layouts, self.settings.split_percent)

    @abstractmethod
    def propose(self, cluster: Cluster, situation: Situation) -> Choice | None:
        """Return a choice, or None where it is not time for one."""


class Static(Control):
    """The split of the ablations without control ("Wo-SC")."""

    def propose(self, cluster: Cluster, situation: Situation) -> Choice | None:
        """Keep the split."""
        return None


class Proactive(Control):
    """Nexus: forecasts both phases and searches the split before anything goes wrong (§4.1, §4.2)."""

    def __init__(self, settings: Settings, belief: Belief) -> None:
        super().__init__(settings)
        self._belief = belief

    def bind(self, deployment: Deployment) -> Layout:
        """Build the cost model from the model's shape and the device's data sheet, never from its true behavior."""
        self._model = CostModel(deployment.cost, deployment.device, self._belief, self.settings.contention)
        start = super().bind(deployment)
        self._floor = floor_percent(self.layouts)
        self._asked = 0
        return start

    def propose(self, cluster: Cluster, situation: Situation) -> Choice | None:
        """Run Algorithm 1, at every `period`-th call."""
        self._asked += 1
        if self._asked % self.settings.period:
            return None
        target = target_phase(situation.kv_usage, self.settings)
        co_run = self._model.co_run(situation.prefill, situation.decode)
        start = round(100 * situation.layout.share(target))
        found = search(co_run, target, start, self.settings, self._floor)
        layout = realize(found, self.layouts, situation.layout, self.settings)
        return Choice(layout, target, found.prefill_percent, found.feasible, found.trace)


class Reactive(Control):
    """Feedback: after each window, shift the split by one step towards the phase that misses its service level.

    After the controllers of semi-PD and Bullet, which react to observed latencies; not theirs in detail. Decode, whose
    lateness every user sees, goes first where both are late.
    """

    def bind(self, deployment: Deployment) -> Layout:
        """Start with the first window."""
        self._since_s, self._read = 0.0, 0
        return super().bind(deployment)

    def propose(self, cluster: Cluster, situation: Situation) -> Choice | None:
        """Judge the window by the 95th percentile of its decode iterations and of its first tokens."""
        if cluster.now_s - self._since_s < self.settings.window_s:
            return None
        tbt_s, ttft_s = self._observe(cluster)
        self._since_s = cluster.now_s
        step = self.settings.step_points
        late = {"decode": tbt_s > self.settings.tbt_slo_s, "prefill": ttft_s > self.settings.ttft_slo_s}
        percent = situation.layout.percent - step * late["decode"] + step * (late["prefill"] and not late["decode"])
        target = next((phase for phase in ("decode", "prefill") if late[phase]), "")
        proposed = nearest(self.layouts, percent)
        keep = not moves_enough(proposed, situation.layout, self.settings.delta_points)
        return Choice(situation.layout if keep else proposed, target, percent)

    def _observe(self, cluster: Cluster) -> tuple[float, float]:
        steps = cluster.log.steps[self._read :]
        self._read = len(cluster.log.steps)
        tbt_s = [step.end_s - step.start_s for step in steps if step.shape.decode_tokens]
        arrivals = {item: cluster.log.requests[item].arrival_s for step in steps for item in step.emitted}
        ttft_s = [step.end_s - arrivals[item] for step in steps if step.shape.prefill_tokens for item in step.emitted]
        return _p95(tbt_s), _p95(ttft_s)


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else 0.0
