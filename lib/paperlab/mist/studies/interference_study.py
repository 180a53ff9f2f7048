"""How well the interference model predicts points that its fit has not seen: made-up points, and this machine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from paperlab.mist.clusters import interference
from paperlab.mist.cost.interference import RESOURCES, Interference
from paperlab.mist.cost.interference_fit import fit, relative_errors

Array = NDArray[np.float64]
_LEVELS = 5  # durations per operation, 0 included, as in the artifact's profile
_UNIT_S = 3e-3
_CPU_LEVELS = 3
_FOLDS = 4


def synthetic_points(name: str, count: int, noise: float, seed: int) -> tuple[Array, Array]:
    """Return points of a published parameter set with multiplicative noise: alone (N x 4, s) and together (N, s).

    Operations last 0 to 4 times 3 ms, give or take 20 %, at least two of them at once.
    """
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, _LEVELS, (4 * count, 4))
    levels = levels[(levels > 0).sum(1) >= 2][:count]
    alone = levels * _UNIT_S * generator.uniform(0.8, 1.2, levels.shape)
    together = interference(name).time_s(*alone.T)
    return alone, together * np.exp(noise * generator.standard_normal(len(together)))


def fit_table(points: int, noise: float, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Held-out error of a fit to half of the points, for each published parameter set, beside simpler models."""
    rows = []
    for name in ("l4", "a100", "l4_readme"):
        for seed in seeds:
            alone, together = synthetic_points(name, points, noise, seed)
            rows += [(name, seed, *row) for row in held_out_errors(alone, together, seed)]
    return pd.DataFrame(rows, columns=["points_of", "seed", "model", "mean_error", "p90_error", "points"])


def held_out_errors(alone: Array, together: Array, seed: int) -> list[tuple[str, float, float, int]]:
    """Fit to one half and return (model, mean, 90th percentile of the error, points) on the other half."""
    order = np.random.default_rng(seed).permutation(len(together))
    seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]
    fitted = relative_errors(fit(alone[seen], together[seen], seed), alone[unseen], together[unseen])
    serial = np.abs(alone[unseen].sum(1) / together[unseen] - 1)
    longest = relative_errors(Interference((1.0,) * 28), alone[unseen], together[unseen])
    errors = {"28 factors, fitted": fitted, "serial sum": serial, "longest alone": longest}
    return [(model, float(e.mean()), float(np.quantile(e, 0.9)), len(unseen)) for model, e in errors.items()]


def cpu_points(repeats: int) -> pd.DataFrame:
    """Time a product (C) beside two copies (H, D) in threads of this machine; one row per combination, in seconds.

    There is no collective: of the 28 factors this exercises nine. Alone and together are medians of `repeats`,
    taken in turns so that a change of the machine's speed touches both.
    """
    work = _workers()
    combinations = [(c, h, d) for c in range(_CPU_LEVELS) for h in range(_CPU_LEVELS) for d in range(_CPU_LEVELS)]
    rows = []
    with ThreadPoolExecutor(3) as pool:
        for combination in combinations:
            tasks = [(index, times) for index, times in enumerate(combination) if times]
            if len(tasks) < 2:
                continue
            alone = {index: [] for index, _ in tasks}  # type: ignore[var-annotated]
            together = []
            for _ in range(repeats):
                for index, times in tasks:
                    alone[index].append(_timed(pool, [(work[index], times)]))
                together.append(_timed(pool, [(work[index], times) for index, times in tasks]))
            medians = [float(np.median(alone[index])) if index in alone else 0.0 for index in range(3)]
            spread = float(np.std(together) / np.mean(together))
            rows.append((*medians, float(np.median(together)), spread))
    return pd.DataFrame(rows, columns=["compute_s", "to_device_s", "to_host_s", "together_s", "spread"])


def _workers() -> list[Callable[[int], None]]:
    import torch

    left, right = torch.rand(384, 384), torch.rand(384, 384)
    product = torch.empty(384, 384)
    buffers = [(torch.rand(4 * 2**20), torch.empty(4 * 2**20)) for _ in range(2)]

    def compute(times: int) -> None:
        for _ in range(4 * times):
            torch.mm(left, right, out=product)

    def copier(source: torch.Tensor, target: torch.Tensor) -> Callable[[int], None]:
        def copy(times: int) -> None:
            for _ in range(times):
                target.copy_(source)

        return copy

    return [compute, *(copier(*pair) for pair in buffers)]


def _timed(pool: ThreadPoolExecutor, tasks: list[tuple[Callable[[int], None], int]]) -> float:
    start = time.perf_counter()
    for future in [pool.submit(function, times) for function, times in tasks]:
        future.result()
    return time.perf_counter() - start


def cpu_table(points: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Held-out error on this machine's points, a quarter of the combinations left out in turn (there are few)."""
    alone = np.zeros((len(points), 4))
    for column, resource in (("compute_s", "C"), ("to_device_s", "H"), ("to_host_s", "D")):
        alone[:, RESOURCES.index(resource)] = points[column]
    together = points.together_s.to_numpy()
    fitted = np.empty(len(points))
    fold = np.random.default_rng(seed).permutation(len(points)) % _FOLDS
    for number in range(_FOLDS):
        model = fit(alone[fold != number], together[fold != number], seed)
        fitted[fold == number] = relative_errors(model, alone[fold == number], together[fold == number])
    serial = np.abs(alone.sum(1) / together - 1)
    longest = np.abs(alone.max(1) / together - 1)
    errors = {"28 factors, fitted": fitted, "serial sum": serial, "longest alone": longest}
    rows = [(model, float(e.mean()), float(np.quantile(e, 0.9)), len(e)) for model, e in errors.items()]
    return pd.DataFrame(rows, columns=["model", "mean_error", "p90_error", "points"])
