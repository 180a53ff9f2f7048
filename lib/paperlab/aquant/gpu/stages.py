"""The stages of AQuant's GPU run and their cells, in order of value. They have not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd

from paperlab.aquant.gpu import bench as measure
from paperlab.aquant.gpu.bench import Bench
from paperlab.lab.gpu_run import Cell, Stage


def _cell(bench: Bench, name: str, function: Callable[..., pd.DataFrame], *args: Any) -> Cell:
    return Cell(name, partial(function, bench, *args))


def _kernels(bench: Bench) -> Iterator[Cell]:
    for bits in bench.scope.timed_bits:
        for batch in bench.scope.batches:
            for network in bench.scope.timed_networks:
                yield _cell(bench, f"{network}, B={batch}, {bits} bits", measure.kernels, network, batch, bits)


def _patches(bench: Bench) -> Iterator[Cell]:
    for network in bench.scope.patch_networks:
        batch = bench.scope.batches[0]
        yield _cell(bench, f"{network}, B={batch}", measure.patches, network, batch)


def _training(bench: Bench) -> Iterator[Cell]:
    for network in bench.scope.trained_networks:
        yield _cell(bench, network, measure.training, network)


def _accuracy(bench: Bench) -> Iterator[Cell]:
    for w_bits, a_bits in bench.scope.bits:
        for network in bench.scope.trained_networks:  # whole rows first, so that what the time admits can be compared
            for arm in bench.scope.methods:
                name = f"{network}, W{w_bits}A{a_bits}, {arm}"
                yield _cell(bench, name, measure.quantized_accuracy, network, w_bits, a_bits, arm)


_MAKERS: dict[str, tuple[float, Callable[[Bench], Iterator[Cell]]]] = {
    "kernels": (0.2, _kernels),
    "training": (0.4, _training),
    "patches": (0.05, _patches),
    "accuracy": (0.35, _accuracy),
}
STAGES = tuple(_MAKERS)


def stages(bench: Bench) -> tuple[Stage, ...]:
    """Return all stages of a run, the most valuable first."""
    return tuple(Stage(name, share, tuple(make(bench))) for name, (share, make) in _MAKERS.items())
