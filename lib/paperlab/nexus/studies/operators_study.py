"""Single iterations under the lens: which operators bind, and what mixing prefill and decode costs (§2, §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from paperlab.hardware import Roofline, device
from paperlab.nexus.policy import Nexus
from paperlab.nexus.studies.serving_study import DEVICE, LDC, with_constants
from paperlab.serving import make_policy, metrics, simulate, workload
from paperlab.serving.cost import ModelCost
from paperlab.serving.deployment import deployment
from paperlab.serving.events import EventLog
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

RATE_PER_S = 2.5  # of the motivation experiments: LDC on Qwen2.5-3B, one L20
PAPER_KINDS = {"prefill": (0.132, 2), "decode": (0.015, 563), "mixed": (0.251, 9150)}  # Fig. 4a: seconds, count


def intensities() -> pd.DataFrame:
    """Return FLOPs per byte by phase and operator, for one chunk of 2,048 tokens and for 32 sequences decoding.

    Columns: phase, operator, flops_per_byte, ridge (of the device), bound.
    """
    steps = {
        "prefill": StepShape(2048, 2048, 2048 * 2048 + 2048 * 2049 // 2, logits=1),
        "decode": StepShape(decode_tokens=32, decode_context=32 * 6000, logits=32),
    }
    cost, roofline = ModelCost(preset(LDC.model)), Roofline.of(device(DEVICE), "bf16")
    rows = [
        (phase, name, flops / moved, roofline.ridge_flops_per_byte, str(roofline.bound(flops, moved)))
        for phase, step in steps.items()
        for name, flops, moved in cost.demands(step)
    ]
    return pd.DataFrame(rows, columns=["phase", "operator", "flops_per_byte", "ridge", "bound"])


@lru_cache(maxsize=4)  # two exhibits look at the same run
def motivation_run(system: str, requests: int, seed: int, mixed_penalty: float = 1.0) -> EventLog:
    """Return the log of the motivation workload."""
    options = with_constants(mixed_penalty=mixed_penalty)
    return LDC.cell(system, RATE_PER_S, requests, seed, options=options).run()


def iteration_kinds(requests: int, seed: int, penalties: Sequence[float]) -> pd.DataFrame:
    """Return `metrics.iterations` of the vLLM-like baseline per mixed-batch penalty, beside Fig. 4a's numbers."""
    tables = []
    for penalty in penalties:
        table = metrics.iterations(motivation_run("vllm-like", requests, seed, penalty))
        tables.append(table.assign(mixed_penalty=penalty))
    found = pd.concat(tables, ignore_index=True)
    counts = sum(count for _, count in PAPER_KINDS.values())
    found["paper_latency_s"] = [PAPER_KINDS[kind][0] for kind in found.kind]
    found["paper_share_percent"] = [100 * PAPER_KINDS[kind][1] / counts for kind in found.kind]
    return found


def typical_batches(requests: int, seed: int) -> pd.DataFrame:
    """Return seconds by operator of the median decode-only and the median mixed iteration: kind, operator, seconds."""
    log = motivation_run("vllm-like", requests, seed)
    model, rows = deployment(LDC.model, DEVICE).device_model, []
    for kind in ("decode", "mixed"):
        steps = sorted((s for s in log.steps if s.shape.kind == kind), key=lambda step: step.end_s - step.start_s)
        parts = model.parts(model.load(steps[len(steps) // 2].shape))
        rows += [(kind, name, seconds) for name, seconds in parts.items()]
    return pd.DataFrame(rows, columns=["kind", "operator", "seconds"])


def prefill_context(requests: int, seed: int) -> pd.DataFrame:
    """Return time_s and the mean stored tokens per prompt of each prefill iteration of a Nexus run (Fig. 6b)."""
    log = motivation_run("nexus", requests, seed)
    steps = [step for step in log.steps if step.lane == "prefill"]
    stored = np.array([step.shape.prefill_context for step in steps])
    return pd.DataFrame({"time_s": [step.start_s for step in steps], "stored_tokens": stored})


def control_records(requests: int, seed: int) -> pd.DataFrame:
    """Return every look of the control at the split in a Nexus run: the columns of `policy.ControlRecord`."""
    policy = make_policy("nexus")
    assert isinstance(policy, Nexus)
    simulate(policy, model=LDC.model, device=DEVICE, workload=workload(LDC.lengths, RATE_PER_S, requests, seed))
    return pd.DataFrame(policy.records)


def linear_kernels(table: pd.DataFrame) -> float:
    """Return the largest ratio of a linear operator's time, mixed over decode-only, in `typical_batches` (§3.1)."""
    wide = table.pivot(index="operator", columns="kind", values="seconds").loc[["qkv", "out", "ffn"]]
    return float((wide["mixed"] / wide["decode"]).max())
