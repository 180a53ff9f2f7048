"""One-GPU plans under a memory cap: how few layers may be checkpointed, as predicted and for real."""

from __future__ import annotations

import gc

import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.mist.gpu.scope import Capped
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import RankResult, train
from paperlab.mist.studies.memory_accuracy import predicted_bytes, predictions

MIB = 2**20


def capped_rows(capped: Capped, device: str) -> pd.DataFrame:
    """Return one row per number of checkpointed layers tried, by bisection between all and none.

    ledger_MiB is the runtime's own count of live storages, allocated_MiB and reserved_MiB the CUDA allocator's peaks.
    `fits` is whether three iterations ran under the cap; on a CPU, which has no cap, whether the ledger stayed below.
    """
    tried: dict[int, dict[str, object]] = {}
    lacking, enough = -1, capped.spec.layers + 1  # checkpointed layers known not to fit, and known to fit
    while enough - lacking > 1:
        count = min((lacking + enough) // 2, capped.spec.layers)
        tried[count] = _attempt(capped, count, device)
        if tried[count]["fits"]:
            enough = count
        else:
            lacking = count
    rows = [{"checkpointed": count, **tried[count]} for count in sorted(tried)]
    return pd.DataFrame(rows).assign(plan=capped.name, cap_MiB=capped.cap_bytes / MIB, **timing.machine(device))


def _attempt(capped: Capped, checkpointed: int, device: str) -> dict[str, object]:
    plan = capped.plan(checkpointed)
    predicted = predicted_bytes(predictions(plan)[0])[1]
    result, allocated, reserved = _run(plan, capped.cap_bytes, device)
    ledger = result.peak().bytes if result else float("nan")
    fits = result is not None and (device == "cuda" or ledger <= capped.cap_bytes)
    sizes = {"predicted": predicted, "ledger": ledger, "allocated": allocated, "reserved": reserved}
    where = result.peak().where if result else "out of memory"
    columns = {f"{name}_MiB": size / MIB for name, size in sizes.items()}
    return {"fits": fits, "predicted_fits": predicted <= capped.cap_bytes, **columns, "peak_at": where}


def _run(plan: Plan, cap_bytes: float, device: str) -> tuple[RankResult | None, float, float]:
    """Train three iterations under the cap; the result is None where memory ran out."""
    nan = float("nan")
    if device != "cuda":
        return train(plan, 3, Options(trace=False)), nan, nan
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_bytes / torch.cuda.mem_get_info()[1]))
    torch.cuda.reset_peak_memory_stats()
    try:
        result = train(plan, 3, Options(trace=False, device=device))
        return result, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    except torch.OutOfMemoryError:
        return None, nan, nan
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def optimizer_rows(capped: Capped, device: str) -> pd.DataFrame:
    """Return peaks (MiB) and iteration times (s) of both optimizers, and without overlap; all layers checkpointed."""
    plan, rows = capped.plan(capped.spec.layers), []
    for decoupled, overlap in ((True, True), (False, True), (True, False)):
        counted = train(plan, 3, Options(trace=False, device=device, decoupled=decoupled, overlap=overlap))
        bare = Options(decoupled=decoupled, overlap=overlap, account=False, trace=False, device=device)
        timed = train(plan, 4, bare)
        assert counted is not None
        assert timed is not None
        step, whole = counted.peak("device", "optimizer").bytes / MIB, counted.peak().bytes / MIB
        rows.append((decoupled, overlap, step, whole, min(timed.iteration_s[1:])))
    columns = ["decoupled", "overlap", "step_peak_MiB", "peak_MiB", "iteration_s"]
    return pd.DataFrame(rows, columns=columns).assign(plan=capped.name, **timing.machine(device))
