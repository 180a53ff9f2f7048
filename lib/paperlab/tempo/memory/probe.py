"""Largest batch on a real GPU under an emulated cap: one fresh process per probe, out of memory really raised.

`python -m paperlab.tempo.memory.probe` reads one `Probe` as JSON from its input and prints one `ProbeResult`. A fresh
process has neither fragments nor cached blocks of an earlier probe, and the cap is set before it allocates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import torch

from paperlab.tempo.dropin import baselines
from paperlab.tempo.memory.capacity import CONTEXT_RESERVE_BYTES, largest, synthetic_batch

CUBLAS_WORKSPACE = ":4096:8"  # fixed, because newer GPUs default to larger workspaces


@dataclass(frozen=True)
class Probe:
    """One training run: a Hugging Face class and its configuration, an arm, sizes and the emulated card.

    `memory_bytes` is the card's memory; `reserve_bytes` of it are left to the context, which the allocator's cap
    does not govern. `dtype` is that of the weights; three steps are enough, as AdamW allocates in the first.
    """

    model_class: str
    config: dict[str, Any]
    arm: str
    batch: int
    seq_len: int
    memory_bytes: int
    reserve_bytes: int = CONTEXT_RESERVE_BYTES
    dtype: str = "float32"
    steps: int = 3


@dataclass(frozen=True)
class ProbeResult:
    """Whether the run fitted, the steps it got through, and the allocator's maxima."""

    batch: int
    fits: bool
    steps_done: int
    allocated_bytes: int
    reserved_bytes: int
    device: str
    cublas_workspace: str


def build_model(probe: Probe) -> Any:
    """The model of a probe, in training mode and configured as its arm, on torch's current default device."""
    import transformers

    settings = probe.config | {"attn_implementation": "eager"}
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = getattr(transformers, probe.model_class)(config)
    return baselines.configure(model.to(getattr(torch, probe.dtype)).train(), probe.arm)


def run(probe: Probe) -> ProbeResult:
    """Train for a few steps in this process, which must not have touched the GPU, and report what happened."""
    device = torch.cuda.get_device_properties(0)
    torch.cuda.set_per_process_memory_fraction((probe.memory_bytes - probe.reserve_bytes) / device.total_memory)
    done = 0
    try:
        with torch.device("cuda"):
            model = build_model(probe)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        batch = synthetic_batch(model, probe.batch, probe.seq_len, "cuda")
        for _ in range(probe.steps):
            optimizer.zero_grad(set_to_none=False)
            model(**batch).loss.backward()
            optimizer.step()
            torch.cuda.synchronize()
            done += 1
    except torch.cuda.OutOfMemoryError:
        pass
    return ProbeResult(
        probe.batch,
        done == probe.steps,
        done,
        torch.cuda.max_memory_allocated(),
        torch.cuda.max_memory_reserved(),
        device.name,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    )


def run_in_subprocess(probe: Probe, timeout_s: float = 600.0) -> ProbeResult:
    """Run one probe in a fresh Python process; raises `RuntimeError` with its last line where it fails."""
    process = subprocess.run(
        [sys.executable, "-m", "paperlab.tempo.memory.probe"],
        input=json.dumps(asdict(probe)),
        env=os.environ | {"CUBLAS_WORKSPACE_CONFIG": CUBLAS_WORKSPACE},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise RuntimeError(f"the probe of batch {probe.batch} failed: {reason}")
    return ProbeResult(**json.loads(process.stdout.strip().splitlines()[-1]))


def measure_max_batch(
    probe: Probe, guess: int = 1, run_probe: Callable[[Probe], ProbeResult] = run_in_subprocess
) -> tuple[int, pd.DataFrame]:
    """Largest batch that trains under the probe's cap, and every probe taken, in order of batch.

    Bisects from `guess` (best: `capacity.max_batch`); the batch after the largest has run out of memory for real.
    `probe.batch` is not used.
    """
    results: list[ProbeResult] = []

    def fits(batch: int) -> bool:
        results.append(run_probe(replace(probe, batch=batch)))
        return results[-1].fits

    best = largest(fits, guess)
    table = pd.DataFrame([asdict(result) for result in results])
    return best, table.sort_values("batch", ignore_index=True)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("a probe needs a CUDA device and found none")
    print(json.dumps(asdict(run(Probe(**json.load(sys.stdin))))))
