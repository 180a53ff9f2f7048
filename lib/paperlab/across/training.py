"""Part A: what Tempo's bytes are worth to Mist's tuner, which can buy memory by other means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch

from paperlab.across.tempo_block import TempoSpec, with_tempo
from paperlab.mist import models
from paperlab.mist.baselines import systems
from paperlab.mist.blocks import initialize
from paperlab.mist.clusters import GIB, cluster
from paperlab.mist.collectives import Alone
from paperlab.mist.config import WORKLOADS
from paperlab.mist.models import Attention, ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.space import Space
from paperlab.mist.search.tuner import NothingFits, tune
from paperlab.mist.symbolic.trace import symbolic_trace
from paperlab.tempo.memory.ledger import retained_bytes

ARMS = ("plain", "Tempo")
PLANNERS = ("Mist", "Megatron-LM-like")
# Mist's space with fewer offload ratios, so that hundreds of searches take a minute; the same for both arms.
SPACE = Space(
    weight_ratios=(0.0,),
    grad_ratios=(0.0,),
    optimizer_ratios=(0.0, 0.5, 1.0),
    activation_ratios=(0.0, 0.25, 0.5, 0.75, 1.0),
)
_SMALL = {"hidden": 64, "layers": 2, "heads": 4, "vocab": 512, "seq_len": 32}
_BATCH = 3


@dataclass(frozen=True)
class Workload:
    """A model of Mist's paper on its devices; `capacity_GiB` 0 leaves the cluster its own memory."""

    on: str
    size: str
    seq_len: int
    attention: Attention
    family: str = "gpt"
    capacity_GiB: float = 0.0

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        found: ModelSpec = getattr(models, self.family)(self.size, seq_len=self.seq_len, attention=self.attention)
        return found

    @property
    def columns(self) -> dict[str, object]:
        """What tells this workload from others in a table."""
        head = {"cluster": self.on, "family": self.family, "size": self.size, "seq_len": self.seq_len}
        return {**head, "attention": self.attention, "capacity_GiB": self._cluster_capacity()}

    def _cluster_capacity(self) -> float:
        return self.capacity_GiB or cluster(self.on).capacity_bytes / GIB


@cache
def best_plan(work: Workload, arm: str, planner: str, overhead: float = 0.0) -> Plan | None:
    """Return the fastest plan that fits, or None. `arm` is `plain` or `Tempo`, `planner` one of `PLANNERS`."""
    nodes, gpus, batch = WORKLOADS[work.size]
    spec, where = work.spec, cluster(work.on, nodes, gpus)
    if work.capacity_GiB:
        where = where.with_capacity(work.capacity_GiB * GIB)
    if arm == "Tempo":
        spec, where = with_tempo(spec, where, overhead)
    if planner != "Mist":
        return systems.best_plan(systems.MEGATRON_FREE, spec, where, batch).plan
    try:
        return tune(spec, where, batch, SPACE, solver="sweep")
    except NothingFits:
        return None


def plan_columns(plan: Plan | None) -> dict[str, object]:
    """Return a plan as cells of a table; what differs from stage to stage stands stage by stage."""
    if plan is None or plan.prediction is None:
        return {"iteration_s": float("nan"), "sequences_per_s": 0.0, "plan": "does not fit"}
    first = plan.stages[0]
    return {
        "iteration_s": plan.prediction.iteration_s,
        "sequences_per_s": plan.global_batch / plan.prediction.iteration_s,
        "plan": f"S{len(plan.stages)} D{first.dp} T{first.tp} b{first.micro_batch} ZeRO-{first.zero}",
        "micro_batch": first.micro_batch,
        "checkpointed_layers": sum(stage.checkpointed for stage in plan.stages),
        "checkpointed": " ".join(str(stage.checkpointed) for stage in plan.stages),
        "optimizer_offload": " ".join(f"{stage.optimizer_offload:g}" for stage in plan.stages),
        "activation_offload": " ".join(f"{stage.activation_offload:g}" for stage in plan.stages),
        "peak_GiB": max(plan.prediction.peak_bytes) / GIB,
    }


def saved_bytes(families: Sequence[str]) -> pd.DataFrame:
    """Return bytes that a block keeps from forward to backward, traced by Mist and measured on the real block.

    Small models in fp32: one forward pass on the CPU, counted by Tempo's ledger. Columns: family, attention,
    operators, traced_bytes, measured_bytes.
    """
    rows = []
    for family in families:
        for attention in ("flash", "math"):
            plain = getattr(models, family)(**_SMALL, attention=attention, dtype="fp32")
            for arm, spec in zip(ARMS, (plain, TempoSpec.of(plain)), strict=True):
                traced = symbolic_trace(spec)["block"].saved.exact(_BATCH, 1)
                rows.append((family, attention, arm, traced, _measured(spec)))
    return pd.DataFrame(rows, columns=["family", "attention", "operators", "traced_bytes", "measured_bytes"])


def _measured(spec: ModelSpec) -> int:
    block = spec.block(Alone())
    initialize(block, 0)
    block.attention.reserve(_BATCH)  # type: ignore[operator, union-attr]
    leading = (_BATCH, spec.seq_len) if spec.attention == "flash" else (spec.seq_len, _BATCH)
    hidden = torch.randn(*leading, spec.shape.hidden, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return retained_bytes(block, (hidden,))


def layer_bytes(families: Sequence[str], sizes: Sequence[str], seq_lens: Sequence[int]) -> pd.DataFrame:
    """Return KiB per token and layer at the paper's sizes in fp16, one device: plain, Tempo and the share saved."""
    rows = []
    for family in families:
        for size in sizes:
            for seq_len in seq_lens:
                for attention in ("flash", "math"):
                    plain = getattr(models, family)(size, seq_len=seq_len, attention=attention)
                    kept = [
                        symbolic_trace(s)["block"].saved.exact(1, 1) / seq_len / 1024
                        for s in (plain, TempoSpec.of(plain))
                    ]
                    rows.append((family, size, seq_len, attention, *kept, 1 - kept[1] / kept[0]))
    columns = ["family", "size", "seq_len", "attention", "plain_KiB", "tempo_KiB", "saved_share"]
    return pd.DataFrame(rows, columns=columns)


def compare(workloads: Sequence[Workload], overhead: float = 0.0) -> pd.DataFrame:
    """Return a row per workload, planner and arm, with `gain`, Tempo's throughput over plain's (NaN without either)."""
    return pd.DataFrame([row for work in workloads for row in _rows(work, overhead)])


def _rows(work: Workload, overhead: float) -> Iterator[dict[str, object]]:
    for planner in PLANNERS:
        plans = [best_plan(work, "plain", planner), best_plan(work, "Tempo", planner, overhead)]
        seconds = [plan.prediction.iteration_s if plan and plan.prediction else float("nan") for plan in plans]
        gain = seconds[0] / seconds[1]
        for arm, plan in zip(ARMS, plans, strict=True):
            head = {**work.columns, "planner": planner, "operators": arm, "overhead": overhead}
            yield {**head, **plan_columns(plan), "gain": gain}


def break_even(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per workload and planner of an overhead sweep, where Tempo's gain falls to 1; straight lines between.

    Negative where plain is faster already without overhead (extrapolated by the first two points).
    """
    keys = ["cluster", "size", "attention", "capacity_GiB", "planner"]
    rows = []
    tempo = table[table.operators == "Tempo"].dropna(subset="gain")
    for key, part in tempo.groupby(keys, sort=False):
        part = part.sort_values("overhead")
        x, y = part.overhead.to_numpy(), part.gain.to_numpy()
        below = int((y < 1).argmax()) if (y < 1).any() else len(y) - 1
        i = max(1, below)
        slope = (y[i] - y[i - 1]) / (x[i] - x[i - 1])
        found = x[i - 1] + (1 - y[i - 1]) / slope if slope else float("inf")
        rows.append((*key, y[0], found))
    return pd.DataFrame(rows, columns=[*keys, "gain_without_overhead", "break_even_overhead"])
