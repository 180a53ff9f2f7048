"""Compute beside copies in both directions on one GPU: points for nine of the 28 factors, and a fit to them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.mist.studies.interference_study import cpu_table

UNIT_S = 3e-3
FEWEST = 4  # points, so that each of the four parts that are held out in turn has one
_COLUMNS = ("compute_s", "to_device_s", "to_host_s")


def interference_rows(levels: tuple[int, ...], repeats: int, device: str) -> pd.DataFrame:
    """Return one row per combination of at least two operations: each alone, and all together (s)."""
    work = _sized(device)
    rows = []
    for combination in itertools.product(levels, repeat=3):
        tasks = [(work[index], times) for index, times in enumerate(combination) if times]
        if len(tasks) < 2:
            continue
        alone = [
            _median_s([(work[i], times)], repeats, device) if times else 0.0 for i, times in enumerate(combination)
        ]
        taken = [_together_s(tasks, device) for _ in range(repeats)]
        spread = statistics.pstdev(taken) / statistics.fmean(taken)
        rows.append((*alone, statistics.median(taken), spread))
    points = pd.DataFrame(rows, columns=[*_COLUMNS, "together_s", "spread"])
    return points.assign(**timing.machine(device))


def held_out(points: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out error of the fitted model and of two simpler ones; empty without points.

    Points whose repeats differ by more than 10 % are left out, unless too few would remain; `steady` says how many do.
    """
    if points.empty:
        return points
    evidence = points[["evidence", "device"]].iloc[0]
    steady = points[points.spread <= 0.1]
    used = steady if len(steady) >= FEWEST else points
    return cpu_table(used, 0).assign(steady=len(steady), **evidence)


Task = Callable[[int], None]


def _sized(device: str) -> list[Task]:
    """Return a product, a copy to the device and one to the host; one unit of each takes about `UNIT_S` alone."""
    gpu = device == "cuda"
    n, dtype = (4096, torch.float16) if gpu else (256, torch.float32)
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    size = 2**25 if gpu else 2**20
    host = [torch.ones(size, dtype=torch.uint8, pin_memory=gpu) for _ in range(2)]
    there = [torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2)]
    units: list[Callable[[], object]] = [
        lambda: torch.mm(left, right),
        lambda: there[0].copy_(host[0], non_blocking=True),
        lambda: host[1].copy_(there[1], non_blocking=True),
    ]
    return [_repeated(unit, device) for unit in units]


def _repeated(unit: Callable[[], object], device: str) -> Task:
    unit()
    count = max(1, round(UNIT_S / statistics.median(timing.timed(unit, 5, device))))

    def task(times: int) -> None:
        for _ in range(times * count):
            unit()

    return task


def _median_s(tasks: list[tuple[Task, int]], repeats: int, device: str) -> float:
    return statistics.median(_together_s(tasks, device) for _ in range(repeats))


def _together_s(tasks: list[tuple[Task, int]], device: str) -> float:
    """Return the seconds until all tasks are done, each on a stream of its own; on a CPU one after the other."""
    if device != "cuda":
        return timing.timed(lambda: [task(times) for task, times in tasks], 1, device)[0]
    main = torch.cuda.current_stream()

    def all_of_them() -> None:
        streams = [torch.cuda.Stream(priority=-1) for _ in tasks]
        for stream, (task, times) in zip(streams, tasks, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                task(times)
        for stream in streams:
            main.wait_stream(stream)

    return timing.timed(all_of_them, 1, device)[0]
