"""What of AQuant only a GPU can show, in one resumable, time-boxed run. It has not run on a GPU yet.

    python -m paperlab.aquant.gpu_evidence --out results/DEVICE/aquant_gpu --minutes 9

A table per stage: kernels (quantizers beside convolutions, layer by layer of six networks), training (full-size
networks on the procedural task at 64x64), patches (rounding per kernel position), accuracy (methods by bits). Accuracy
takes many runs on the same folder: what one has learned, unit by unit, the next one goes on from, as
`paperlab.lab.gpu_run` tells. With --smoke the smallest network runs through every stage, on any machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from paperlab.aquant.gpu.bench import FULL, Bench, Scope, smoke
from paperlab.aquant.gpu.stages import STAGES, stages
from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box

SETTINGS = ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "TRITON_INTERPRET")


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""
    return gpu_run.gather(
        lambda runner: stages(Bench(scope, box.device, box.folder, runner.end_s, runner.read)), box, SETTINGS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.aquant.gpu_evidence", summary, STAGES, arguments)
    if box.device != "cuda":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which is later
    return int(gather(smoke() if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
