"""What of Seesaw only a GPU can show, in one resumable, time-boxed run. It has not run on a GPU yet.

    python -m paperlab.seesaw.gpu_evidence --out results/DEVICE/seesaw_gpu --minutes 9

A table per stage: overlap (layers leave behind real prefill, Fig. 8), reload (weights from pageable, pinned and
registered memory), kv_copies (HND against NHD), shard_replay (one rank's layers of the paper's models, to calibrate
by), one_rank (whole runs with a tier on the host against static schedulers), shared_gpu (tokens of ranks that share a
GPU, without times). Weights are random, of the true shapes, in bf16. `paperlab.lab.gpu_run` tells how runs go on. With
--smoke a tiny model runs through every stage, on any machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box
from paperlab.seesaw.gpu.bench import FULL, Bench, Scope, smoke
from paperlab.seesaw.gpu.stages import STAGES, stages

SETTINGS = ("CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF")


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""
    return gpu_run.gather(lambda runner: stages(Bench(scope, box.device)), box, SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.seesaw.gpu_evidence", summary, STAGES, arguments)
    return int(gather(smoke() if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
