"""Runs a plan file under torchrun: `torchrun --nproc-per-node N -m paperlab.mist.run plan.json`.

One rank per device of the plan, gloo on the CPU and NCCL on GPUs. Rank 0 prints the loss and time of every iteration
and, per stage, the peak of its device memory beside the plan's prediction.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from paperlab.mist.plan import Plan

if TYPE_CHECKING:
    from paperlab.mist.runtime.engine import RankResult

_MIB = 2**20


def main(arguments: list[str] | None = None) -> int:
    """Parse, join the process group, train, report; returns the exit status, 2 for a plan that cannot run here."""
    options = _parser().parse_args(arguments)
    try:
        plan = Plan.load(options.plan)
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        if ranks != plan.cluster.gpus:
            needed = plan.cluster.gpus
            raise ValueError(
                f"the plan needs {needed} ranks; {ranks} were started (torchrun --nproc-per-node {needed})"
            )
        results = _train(plan, options)
    except (OSError, ValueError) as error:
        print(f"paperlab.mist.run: {error}", file=sys.stderr)
        return 2
    if results:
        _report(plan, results, options.trace)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paperlab.mist.run", description="Train with a plan's parallelism.")
    parser.add_argument("plan", type=Path, help="plan file, as Plan.save writes it")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of weights and synthetic tokens")
    parser.add_argument("--monolithic", action="store_true", help="one optimizer step at the end of each iteration")
    parser.add_argument("--no-overlap", action="store_true", help="copies and collectives run on the compute lane")
    parser.add_argument("--trace", type=Path, help="write spans of all ranks here, in Chrome's trace format")
    return parser


def _train(plan: Plan, options: argparse.Namespace) -> list[RankResult]:
    """Train on this rank; returns every rank's result on rank 0, nothing on the others."""
    import torch
    import torch.distributed as dist

    from paperlab.mist.runtime.build import Options
    from paperlab.mist.runtime.engine import train
    from paperlab.mist.runtime.groups import TIMEOUT_S

    torch.set_num_threads(max(1, torch.get_num_threads()) if options.device == "cuda" else 1)
    alone = plan.cluster.gpus == 1
    if not alone:
        backend = "gloo" if options.device == "cpu" else "nccl"
        dist.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT_S))
    try:
        settings = Options(
            decoupled=not options.monolithic,
            overlap=not options.no_overlap,
            trace=options.trace is not None,
            device=options.device,
            seed=options.seed,
        )
        result = train(plan, options.iterations, settings)
        assert result is not None
        if alone:
            return [result]
        gathered: list[RankResult | None] | None = [None] * plan.cluster.gpus if dist.get_rank() == 0 else None
        dist.gather_object(result, gathered)
        return [found for found in gathered or [] if found is not None]
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _report(plan: Plan, results: list[RankResult], trace: Path | None) -> None:
    losses = next(result.losses for result in results if result.losses)
    for iteration, loss in enumerate(losses):
        slowest_s = max(result.iteration_s[iteration] for result in results)
        print(f"iteration {iteration}: loss {loss:.6f}, {slowest_s:.3f} s")
    for stage in range(len(plan.stages)):
        peak = max((r.peak() for r in results if r.stage == stage), key=lambda peak: peak.bytes)
        predicted = ""
        if plan.prediction is not None:
            predicted = f", predicted {plan.prediction.peak_bytes[stage] / _MIB:.1f} MiB"
        print(f"stage {stage}: device peak {peak.bytes / _MIB:.1f} MiB ({peak.where}){predicted}")
    if trace is not None:
        from paperlab.mist.runtime.trace import export_chrome

        export_chrome([span for result in results for span in result.spans], trace)


if __name__ == "__main__":
    sys.exit(main())
