"""The stages of Nexus's GPU run and their cells, in order of value. They have not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd

from paperlab.lab.gpu_run import Cell, Stage
from paperlab.nexus.gpu import iterations, whole_systems
from paperlab.nexus.gpu.bench import Bench


def _cell(bench: Bench, name: str, measure: Callable[..., pd.DataFrame], *args: Any) -> Cell:
    return Cell(name, partial(bench.run, measure, *args))


def _partition(bench: Bench) -> Iterator[Cell]:
    yield _cell(bench, "every layout", iterations.partitions)


def _decode(bench: Bench) -> Iterator[Cell]:
    for sequences in bench.scope.decode_batches:
        yield _cell(bench, f"B={sequences}", iterations.decode, sequences)


def _kinds(bench: Bench) -> Iterator[Cell]:
    yield _cell(bench, "kinds of batches", iterations.kinds)


def _kernels(bench: Bench) -> Iterator[Cell]:
    yield _cell(bench, "classes of kernels", iterations.kernels)


def _shares(bench: Bench) -> Iterator[Cell]:
    yield _cell(bench, "whole device", iterations.shares, None)
    for count in iterations.known_layouts(bench):
        yield _cell(bench, f"{count} SMs first", iterations.shares, count)


def _contention(bench: Bench) -> Iterator[Cell]:
    for stored in (None, *bench.scope.stored):
        yield _cell(bench, "alone" if stored is None else f"{stored} stored", iterations.contention, stored)


def _capacity(bench: Bench) -> Iterator[Cell]:
    for served in bench.scope.served:
        yield _cell(bench, served.scenario.label, whole_systems.capacity, served)


def _serving(bench: Bench) -> Iterator[Cell]:
    for seed in bench.scope.seeds:  # whole grids first, so that what the time admits can be compared
        for served in bench.scope.served:
            for load in bench.scope.loads:
                for system in served.systems:
                    name = f"{served.scenario.label}, load {load}, {system}, seed {seed}"
                    yield _cell(bench, name, whole_systems.point, served, load, system, seed)


_MAKERS: dict[str, tuple[float, Callable[[Bench], Iterator[Cell]]]] = {
    "partition": (0.04, _partition),
    "decode": (0.08, _decode),
    "kinds": (0.04, _kinds),
    "shares": (0.14, _shares),
    "contention": (0.08, _contention),
    "capacity": (0.12, _capacity),
    "serving": (0.46, _serving),
    "kernels": (0.04, _kernels),
}
STAGES = tuple(_MAKERS)


def stages(bench: Bench) -> tuple[Stage, ...]:
    """Return all stages of a run, the most valuable first."""
    return tuple(Stage(name, share, tuple(make(bench))) for name, (share, make) in _MAKERS.items())
