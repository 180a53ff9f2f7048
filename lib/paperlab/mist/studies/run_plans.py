"""Small plans to execute on this machine, and their execution on a pool of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paperlab.mist.models import ModelSpec, falcon, gpt, llama
from paperlab.mist.plan import OFFLOADS, ClusterSize, Plan, StagePlan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import RankResult, train
from paperlab.mist.runtime.pool import RankPool

CLUSTER = "this machine"


def make_plan(spec: ModelSpec, stages: int = 1, accumulation: int = 4, **stage: Any) -> Plan:
    """Return a plan of `stages` equal stages with the `StagePlan` fields given; micro-batch 2, alone, all else off."""
    layout = {"layers": spec.layers // stages, "checkpointed": 0, "micro_batch": 2, "dp": 1, "tp": 1} | stage
    part = StagePlan(**layout)
    size = ClusterSize(CLUSTER, 1, part.gpus * stages)
    return Plan(spec, size, part.micro_batch * part.dp * accumulation, accumulation, (part,) * stages)


def label(plan: Plan) -> str:
    """Return what tells a plan of equal stages from others: "PP2 DP1 TP1 G4 b2 Z1 C0", and offload ratios."""
    part = plan.stages[0]
    text = f"PP{len(plan.stages)} DP{part.dp} TP{part.tp} G{plan.accumulation} b{part.micro_batch}"
    text += f" Z{part.zero} C{part.checkpointed}"
    ratios = [f"{name[0]}o{getattr(part, name):g}" for name in OFFLOADS if getattr(part, name)]
    return " ".join([text, *ratios])


@contextmanager
def ranks(count: int, pool: RankPool | None = None) -> Iterator[RankPool]:
    """Give `pool`, or a new one of `count` ranks for the body."""
    if pool is not None:
        yield pool
        return
    with RankPool(count) as own:
        yield own


def execute(pool: RankPool, plan: Plan, iterations: int = 3, options: Options | None = None) -> list[RankResult]:
    """Train on the pool's first ranks and return what each of them did."""
    return [result for result in pool.run(train, plan, iterations, options) if result is not None]


def of_stage(results: Sequence[RankResult], stage: int) -> RankResult:
    """Return the result of a stage's rank with the highest device peak."""
    return max((r for r in results if r.stage == stage), key=lambda result: result.peak().bytes)


def small_models(hidden: int = 64, layers: int = 6, seq_len: int = 32, vocab: int = 128) -> dict[str, ModelSpec]:
    """Return the three families, and GPT with math attention, in fp32 and in sizes for two processor cores."""
    sizes: dict[str, Any] = {"hidden": hidden, "layers": layers, "heads": 4, "vocab": vocab, "seq_len": seq_len}
    sizes["dtype"] = "fp32"
    return {
        "gpt": gpt(**sizes),
        "gpt, math attention": gpt(**sizes, attention="math"),
        "llama": llama(**sizes, ffn=3 * hidden),
        "falcon": falcon(**sizes),
    }
