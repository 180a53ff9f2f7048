"""What of Mist only a GPU can show, in one resumable, time-boxed run. It has not run on a GPU yet.

    python -m paperlab.mist.gpu_evidence --out results/DEVICE/mist_gpu --minutes 9

A table per stage: capped (one-GPU plans under 24 and 40 GB, by bisection to the edge of memory), optimizer (decoupled
and monolithic, overlap on and off), interference and fit (compute beside both copies), operators (a latency table for
every paper shape at every tensor-parallel size, as `data/mist/operators_l4.csv`), layers (whole blocks against that
table). `paperlab.lab.gpu_run` tells how a run goes on. With --smoke tiny models run through every stage anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box, Cell, Runner, Stage
from paperlab.mist.gpu import interference, operators, plans
from paperlab.mist.gpu.scope import FULL, Scope, smoke
from paperlab.mist.models import ModelSpec

STAGES = ("capped", "optimizer", "interference", "fit", "operators", "layers")
SETTINGS = ("CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF")


def stages(scope: Scope, device: str, read: Callable[[str], pd.DataFrame]) -> tuple[Stage, ...]:
    """Return all stages of a run, the most valuable first; `read` returns the table of another stage."""
    capped = [Cell(item.name, partial(plans.capped_rows, item, device)) for item in scope.capped]
    offloading = [item for item in scope.capped if "optimizer_offload" in item.ratios]
    optimizer = [Cell(item.name, partial(plans.optimizer_rows, item, device)) for item in offloading]
    points = Cell("all combinations", partial(interference.interference_rows, scope.levels, scope.repeats, device))
    fit = Cell("held-out error", lambda: interference.held_out(read("interference")))
    shapes = [
        Cell(
            f"{spec.name}, {spec.attention}, tp {tp}",
            partial(operators.operator_rows, spec, tp, scope.batches, scope.repeats, device),
        )
        for tp in scope.tp_sizes
        for spec in scope.models
    ]
    layers = [
        Cell(f"{spec.name}, {spec.attention}", partial(_layers, scope, spec, device, read)) for spec in scope.models
    ]
    cells = (capped, optimizer, [points], [fit], shapes, layers)
    shares = (0.4, 0.15, 0.1, 0.02, 0.25, 0.08)
    return tuple(Stage(name, share, tuple(c)) for name, share, c in zip(STAGES, shares, cells, strict=True))


def _layers(scope: Scope, spec: ModelSpec, device: str, read: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    return operators.layer_rows(spec, scope.batches, scope.repeats, device, read("operators"))


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""

    def make(runner: Runner) -> tuple[Stage, ...]:
        return stages(scope, box.device, runner.read)

    return gpu_run.gather(make, box, SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.mist.gpu_evidence", summary, STAGES, arguments)
    return int(gather(smoke() if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
