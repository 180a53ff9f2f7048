"""Plan search: every feasible static layout and every pair of layouts, forecast; the few best simulated (§6.2).

The paper sweeps its baseline and states one pair per model without a search; this is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.layout import Layout, replica_layouts, static_layouts
from paperlab.seesaw.prices import Prices
from paperlab.seesaw.simulation import Run
from paperlab.serving.work import StepShape
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape, preset

if TYPE_CHECKING:
    import pandas as pd

CHUNKS = (0, 256, 512, 1024, 2048)  # token budgets of the static baseline; 0: prompts in batches of their own
LEAST_KV_TOKENS = 4096  # a layout that holds less is no candidate
SIMULATED_REQUESTS = 500  # of a longer workload, the first so many are simulated, to correct the forecast of all


@dataclass(frozen=True)
class Candidate:
    """One way to run: its forecast makespan, and the simulated one where it was among the best.

    Of a workload above `SIMULATED_REQUESTS` a part is simulated, and the forecast of the whole is corrected by it.
    """

    run: Run
    forecast_s: float
    makespan_s: float | None = None

    @property
    def is_static(self) -> bool:
        """Whether the layout stays the same."""
        return self.run.decode is None


@dataclass(frozen=True)
class Plan:
    """All candidates, and the workload they are for."""

    candidates: tuple[Candidate, ...]
    workload: Workload

    @cached_property
    def best(self) -> Candidate:
        """The fastest simulated candidate."""
        return _fastest(self.candidates)

    @cached_property
    def best_static(self) -> Candidate:
        """The fastest simulated static layout."""
        return _fastest([item for item in self.candidates if item.is_static])

    @cached_property
    def best_resharding(self) -> Candidate:
        """The fastest simulated pair of layouts."""
        return _fastest([item for item in self.candidates if not item.is_static])

    @property
    def speedup(self) -> float:
        """Throughput of the best pair over that of the best static layout."""
        assert self.best_static.makespan_s
        assert self.best_resharding.makespan_s
        return self.best_static.makespan_s / self.best_resharding.makespan_s

    def table(self) -> pd.DataFrame:
        """Return a row per candidate, the simulated ones first: layouts, forecast, makespan, throughput, regret.

        `regret` is how much longer than the best a candidate takes: simulated ones against the best simulated,
        others by their forecasts.
        """
        import pandas as pd

        least_s = min(item.forecast_s for item in self.candidates)
        rows = []
        for item in self.candidates:
            scored = item.makespan_s is not None
            value, least = (item.makespan_s, self.best.makespan_s) if scored else (item.forecast_s, least_s)
            row: dict[str, object] = {"layout": item.run.label, "kind": "static" if item.is_static else "re-sharding"}
            row |= {"kv_tokens_per_replica": item.run.gpu_tokens, "forecast_s": item.forecast_s}
            row |= {"makespan_s": item.makespan_s, "score": "simulated" if scored else "forecast"}
            row["requests_per_s"] = len(self.workload) / item.makespan_s if item.makespan_s else None
            rows.append(row | {"regret": value / least - 1})  # type: ignore[operator]
        frame = pd.DataFrame(rows)
        order = frame.assign(late=frame["score"] != "simulated").sort_values(["late", "regret", "layout"])
        return order.drop(columns="late").reset_index(drop=True)

    def explain(self) -> str:
        """Return in words which plan wins, by how much, and where each layout spends its time."""
        pair, static = self.best_resharding, self.best_static
        verb = "faster" if self.speedup >= 1 else "slower"
        lines = [
            f"{pair.run.label} is {abs(self.speedup - 1):.0%} {verb} than the best static layout, {static.run.label}.",
        ]
        assert pair.run.decode is not None
        for phase, own in (("prefill", pair.run.prefill), ("decode", pair.run.decode)):
            lines += [_sentence(phase, layout, pair.run) for layout in dict.fromkeys((own, static.run.prefill))]
        return "\n".join(lines)


def plan(
    model: str | ModelShape,
    gpus: int,
    device: str | Node,
    workload: Workload,
    *,
    simulate: int = 3,
    chunks: Sequence[int] = CHUNKS,
) -> Plan:
    """Return the plan for `workload` on `gpus` GPUs: which layouts, how much better than the best static one, and why.

    Args:
        model: a preset's name or a shape.
        gpus: in the node; every (DP, TP, PP) that uses all of them is a candidate.
        device: a device's name, or a node of your own.
        workload: from `paperlab.seesaw.workload` or the serving core; arrival times are ignored by the forecast.
        simulate: how many of the best forecasts of either kind are simulated.
        chunks: token budgets of static layouts that are tried; 0 for prompts apart from decodes.

    Raises:
        ValueError: an unknown name, or the model fits in no layout.
    """
    shape = preset(model) if isinstance(model, str) else model
    runs = [*static_runs(shape, node(device), gpus, chunks), *resharding_runs(shape, node(device), gpus)]
    found = sorted((Candidate(run, estimate_s(run, workload.requests)) for run in runs), key=_forecast)
    if not found:
        raise ValueError(
            f"{shape.name} fits on {gpus} x {node(device).name} in no layout; give more GPUs or larger ones"
        )
    chosen = {id(item) for kind in (True, False) for item in [c for c in found if c.is_static == kind][:simulate]}
    scored = [_simulated(item, workload) if id(item) in chosen else item for item in found]
    return Plan(tuple(scored), workload)


def static_runs(model: ModelShape, on: Node, gpus: int, chunks: Sequence[int] = CHUNKS) -> Iterator[Run]:
    """Yield every static layout that fits, with every chunk size."""
    for layout in static_layouts(model, gpus):
        for chunk in chunks:
            run = Run(model, on, layout, None, chunk)
            if run.gpu_tokens >= LEAST_KV_TOKENS:
                yield run


def resharding_runs(model: ModelShape, on: Node, gpus: int) -> Iterator[Run]:
    """Yield every pair of layouts that fits, DP being the same in both."""
    for dp in (size for size in range(1, gpus + 1) if gpus % size == 0):
        layouts = [Layout(dp, item.tp, item.pp) for item in replica_layouts(model, gpus // dp)]
        for prefill in layouts:
            for decode in layouts:
                run = Run(model, on, prefill, decode)
                if run.gpu_tokens >= LEAST_KV_TOKENS:
                    yield run


def _simulated(candidate: Candidate, workload: Workload) -> Candidate:
    if len(workload) <= SIMULATED_REQUESTS:
        return replace(candidate, makespan_s=candidate.run.simulate(workload).end_s)
    part = replace(workload, requests=workload.requests[:SIMULATED_REQUESTS])
    correction = candidate.run.simulate(part).end_s / estimate_s(candidate.run, part.requests)
    return replace(candidate, makespan_s=candidate.forecast_s * correction)


def _forecast(candidate: Candidate) -> float:
    return candidate.forecast_s


def _fastest(candidates: Sequence[Candidate]) -> Candidate:
    scored = [item for item in candidates if item.makespan_s is not None]
    if not scored:
        raise ValueError("no candidate of this kind fits")
    return min(scored, key=lambda item: item.makespan_s or 0.0)


def _sentence(phase: str, layout: Layout, run: Run) -> str:
    """Say how long one layer's micro-batch takes per token, and the largest causes."""
    prices = Prices(run.model, layout, run.node)
    context = 2048
    if phase == "prefill":
        step, per = StepShape(context, 0, context * context // 2, logits=1), context
    else:
        batch = max(1, run.gpu_tokens // context)
        per = max(1, batch // layout.pp)
        step = StepShape(0, 0, 0, per, per * context, per)
    layer = prices.layer(step)
    seconds = max(prices.compute_s(step)) / per / layout.dp
    causes = sorted(zip(layer._fields, layer, strict=True), key=lambda item: -item[1])[:2]
    shares = ", ".join(f"{name} {value / layer.total:.0%}" for name, value in causes)
    return f"  {phase} in {layout}: {1e6 * seconds:.0f} us per token ({shares})"
