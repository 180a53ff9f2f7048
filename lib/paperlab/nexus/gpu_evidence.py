"""What of Nexus only a GPU can show, in one resumable, time-boxed run. It has not run on a GPU yet.

    python -m paperlab.nexus.gpu_evidence --out results/DEVICE/nexus_gpu --minutes 9

A table per stage: partition (multiprocessors of the lanes), decode (with graphs, against the bandwidth bound), kinds
and kernels (Fig. 4), shares (Fig. 5), contention (Fig. 6a), capacity and serving (Figs. 9, 13). Weights are random, of
the true shapes, in bf16. A whole grid takes several runs on the same folder; `paperlab.lab.gpu_run` tells how they go
on. With --smoke a tiny model runs through every stage, on any machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box
from paperlab.nexus.gpu.bench import Bench
from paperlab.nexus.gpu.scope import FULL, Scope, smoke
from paperlab.nexus.gpu.stages import STAGES, stages

SETTINGS = ("CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF")


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""
    return gpu_run.gather(lambda runner: stages(Bench(scope, box.device, runner.read)), box, SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.nexus.gpu_evidence", summary, STAGES, arguments)
    return int(gather(smoke() if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
