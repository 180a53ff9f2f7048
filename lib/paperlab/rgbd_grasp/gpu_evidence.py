"""What of RGBD-Grasp only a GPU can show, in one resumable, time-boxed run. It has not run on a GPU yet.

    python -m paperlab.rgbd_grasp.gpu_evidence --out results/DEVICE/rgbd_grasp_gpu --minutes 9

A table per stage: frames (generated scenes), speed (the full net's inference and training beside the device's peak),
training (the full net from scratch, RGB, RGB and normals, depth, normals, by seed), heatmaps (their best entries on
held-out scenes, beside an untrained net and the class prior), grasps (average precision after search, beside an oracle
and random orientations). Frames and weights stay in the folder, so that a later run goes on, as `paperlab.lab.gpu_run`
tells. With --smoke tiny nets run through every stage, on any machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from paperlab.lab import gpu_run
from paperlab.lab.gpu_run import Box
from paperlab.rgbd_grasp.gpu.bench import Bench
from paperlab.rgbd_grasp.gpu.scope import FULL, Scope, smoke
from paperlab.rgbd_grasp.gpu.stages import STAGES, stages

SETTINGS = ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF")


def gather(scope: Scope, box: Box) -> int:
    """Run the stages of `scope` within the box; return the number of failures."""
    return gpu_run.gather(
        lambda runner: stages(Bench(scope, box.device, box.folder, runner.end_s, runner.read)), box, SETTINGS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    summary = str(__doc__).splitlines()[0]
    box, rehearsal = gpu_run.command_line("paperlab.rgbd_grasp.gpu_evidence", summary, STAGES, arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that make and judge frames
    return int(gather(smoke() if rehearsal else FULL, box) > 0)


if __name__ == "__main__":
    sys.exit(main())
