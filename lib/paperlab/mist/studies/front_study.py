"""What α-sampling of Pareto fronts costs, and how the solvers compare, on random instances."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from paperlab.mist.search.fronts import pareto, sampled
from paperlab.mist.search.inter import Option, Stages, brute_force, solve_milp, solve_sweep

_LARGE = 3  # instances too large for brute force: they only compare times
_POINTS, _STAGES, _LAYERS, _ACCUMULATION = 2000, 4, 6, 8


def random_cells(seed: int) -> list[list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]]:
    """Return, per stage and layer count, 2,000 points (t, d) above a front that bends both ways."""
    generator = np.random.default_rng(seed)
    stages = []
    for _ in range(_STAGES):
        cells = []
        for layers in range(_LAYERS - 2, _LAYERS + 3):
            x = generator.uniform(0, 1, _POINTS)
            bend = 0.25 * np.sin(generator.uniform(6, 14) * x + generator.uniform(0, 6))
            above = generator.exponential(0.1, (2, _POINTS))
            t = layers * (1 + 0.6 * x + above[0])
            d = layers * (3 * (1 - x) ** 2 + bend + 0.3 + above[1])
            cells.append((layers, t, d))
        stages.append(cells)
    return stages


def sampling_table(draws: int, seed: int, alphas: tuple[int, ...] = (5, 10, 30)) -> pd.DataFrame:
    """Points kept and optimum lost by α-sampling, against the full front, per instance."""
    rows = []
    for instance in range(draws):
        cells = random_cells(seed + instance)
        full, kept_full = _options(cells, None)
        best = solve_sweep(full, _STAGES * _LAYERS, _ACCUMULATION)
        assert best is not None
        for count in alphas:
            options, kept = _options(cells, count)
            found = solve_sweep(options, _STAGES * _LAYERS, _ACCUMULATION)
            lost = np.nan if found is None else found.iteration_s / best.iteration_s - 1
            rows.append((instance, count, kept, kept_full, lost))
    return pd.DataFrame(rows, columns=["instance", "alphas", "points_per_cell", "front_per_cell", "loss"])


def _options(
    cells: list[list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]], alphas: int | None
) -> tuple[Stages, float]:
    stages, counts = [], []
    for stage in cells:
        options = []
        for layers, t, d in stage:
            chosen = pareto(t, d) if alphas is None else sampled(t, d, 1 / _ACCUMULATION, alphas)
            counts.append(len(chosen))
            options += [Option(layers, float(t[i]), float(d[i])) for i in chosen]
        stages.append(options)
    return stages, float(np.mean(counts))


def random_instance(
    generator: np.random.Generator, stages: int, choices: int, policies: int
) -> tuple[Stages, int, int]:
    """Return stages with `choices` layer counts of `policies` options each, layers to place, and G."""
    built = [
        [
            Option(layers, float(layers * generator.uniform(0.8, 1.4)), float(generator.uniform(0, 4 * layers)))
            for layers in range(2, 2 + choices)
            for _ in range(policies)
        ]
        for _ in range(stages)
    ]
    return built, int(generator.integers(2 * stages, (2 + choices) * stages)), int(stages * generator.integers(1, 9))


def solver_table(draws: int, seed: int) -> pd.DataFrame:
    """MILP, sweep and, where small enough, brute force on the same instances: time (s) and iteration time."""
    generator = np.random.default_rng(seed)
    rows = []
    for stages, policies in ((2, 5), (3, 5), (4, 5), (8, 30)):
        small = policies**stages * 5**stages < 1e6
        for draw in range(draws if small else min(draws, _LARGE)):
            instance = random_instance(generator, stages, 5, policies)
            solvers = {"milp": solve_milp, "sweep": solve_sweep}
            if small:
                solvers["brute force"] = brute_force  # type: ignore[assignment]
            for name, solve in solvers.items():
                start = time.perf_counter()
                found = solve(*instance)
                seconds = time.perf_counter() - start
                rows.append((stages, policies, draw, name, seconds, np.nan if found is None else found.iteration_s))
    return pd.DataFrame(rows, columns=["stages", "policies", "instance", "solver", "seconds", "optimum"])
