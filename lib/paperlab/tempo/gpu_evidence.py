"""All that only a GPU can show, in one resumable, time-boxed run.

    python -m paperlab.tempo.gpu_evidence --out DIR --minutes 9

The run is that of `paperlab.lab.gpu_run`: a table per stage, provenance, and a later run on the same folder goes on.
With --smoke tiny models run through every stage, on any machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box, Runner, Stage
from paperlab.lab.timing import machine
from paperlab.tempo.memory.probe import CUBLAS_WORKSPACE
from paperlab.tempo.speed.fresh import Caller, CallFailed
from paperlab.tempo.speed.gpu_cells import Bench
from paperlab.tempo.speed.gpu_stages import FULL, STAGES, Scope, smoke, stages

MEMORY_SETTINGS = ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def working_caller(device: str, end_s: float) -> Caller:
    """Return a caller whose processes can use the device: forked where that works, spawned otherwise."""
    caller = Caller("forkserver", end_s)
    try:
        caller(machine, device, timeout_s=120)
    except (CallFailed, TimeoutError) as error:
        print(f"processes are spawned, since forked ones fail: {error}", flush=True)
        return Caller("spawn", end_s)
    return caller


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""

    def make(runner: Runner) -> tuple[Stage, ...]:
        return stages(scope, Bench(box.device, scope.repeat, working_caller(box.device, runner.end_s), runner.read))

    return gpu_run.gather(make, box, MEMORY_SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.tempo.gpu_evidence", summary, STAGES, arguments)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    return int(gather(smoke(box.device) if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
