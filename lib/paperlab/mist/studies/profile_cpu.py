"""Measures what the cost model needs of this machine: layers, collectives and copies, with all ranks busy at once.

Every rank profiles at the same time, as they compute at the same time in a run: two ranks share caches and memory.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from paperlab.mist.blocks import DTYPES, ScoreBuffer, initialize
from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.communication import Links, Rates
from paperlab.mist.cost.interference import SUBSETS, Interference
from paperlab.mist.cost.operators import OperatorModel
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import make_module
from paperlab.mist.runtime.groups import all_gather, reduce_scatter
from paperlab.mist.runtime.lanes import make_lanes
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.runtime.trace import Trace
from paperlab.mist.studies.run_plans import CLUSTER
from paperlab.mist.symbolic.sizes import Size
from paperlab.mist.symbolic.trace import KINDS, LayerTrace

Cell = tuple[str, int, int]  # kind of layer, micro-batch, tp
Measured = dict[Cell | str, tuple[float, ...]]
LINKS = ("all-gather", "reduce-scatter", "send", "all-reduce", "copy")
_MESSAGES = (1 << 16, 1 << 22)  # bytes
_COLD = 1 << 26  # bytes


class _AllRanks:
    """The tensor-parallel group of all ranks; of one rank if `size` is 1."""

    def __init__(self, size: int) -> None:
        self.size, self.rank = size, dist.get_rank() % size

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM)
        return x


@dataclass(frozen=True)
class LayerTable(OperatorModel):
    """Measured forward and backward seconds of whole layers with their messages, by kind, micro-batch and tp.

    An all-reduce between layers' operators also waits for the slower rank, which none measured alone does.
    """

    layers: Mapping[Cell, tuple[float, float]] = field(default_factory=dict)
    links: Links | None = None

    def layer_s(self, trace: LayerTrace, batch: int, tp: int) -> tuple[float, float]:
        """Return the measured pair less what the cost model adds for messages; adding up gradients is in backward."""
        assert self.links is not None
        forward_s, backward_s = self.layers[trace.kind, batch, tp]
        forward_tp_s, backward_tp_s = (
            sum(self.links.all_reduce_s(float(size.at(batch, tp)), 1, tp) for size in messages)
            for messages in (trace.forward_messages, trace.backward_messages)
        )
        return max(0.0, forward_s - forward_tp_s), max(0.0, backward_s - backward_tp_s)

    def accumulate_s(self, weights: Size, element_bytes: int, batch: int, tp: int) -> float:
        """Return 0: the measured backward adds to gradients that are there."""
        return 0.0


@dataclass(frozen=True)
class MeasuredLinks(Links):
    """Collectives with a fit each: gloo's do not stand in the ratios that the artifact found for NCCL."""

    reduce_scatter: Rates = (1.0, 0.0)
    all_reduce: Rates = (1.0, 0.0)

    def reduce_scatter_s(self, size_bytes: Any, nodes: int, per_node: int) -> Any:
        """Return the seconds of a reduce-scatter between two ranks; 0 for one."""
        return self._fitted(self.reduce_scatter, size_bytes, nodes, per_node)

    def all_reduce_s(self, size_bytes: Any, nodes: int, per_node: int) -> Any:
        """Return the seconds of an all-reduce between two ranks; 0 for one."""
        return self._fitted(self.all_reduce, size_bytes, nodes, per_node)

    def _fitted(self, rates: Rates, size_bytes: Any, nodes: int, per_node: int) -> Any:
        one = Links({(nodes, per_node): rates}, self.host_to_device, self.device_to_host)
        return one.all_gather_s(size_bytes, nodes, per_node)


@dataclass(frozen=True)
class Profile:
    """What was measured: the cost model's cluster, and two numbers that the published model has no place for.

    adam_s: seconds per element of an optimizer step. send: bandwidth (B/s) and latency (s) of a message to the next
    stage, while both neighbors wait for it.
    """

    cluster: Cluster
    adam_s: float
    send: Rates


def measurement(plans: Sequence[Plan], pool: RankPool, repeats: int) -> list[Measured]:
    """Return what each rank measured of everything that `plans` need.

    Raises:
        ValueError: the pool does not have two ranks, between which collectives are measured.
    """
    if pool.size != 2:
        raise ValueError(f"the pool has {pool.size} ranks; a profile is taken on 2")
    cells = sorted({(kind, s.micro_batch, s.tp) for plan in plans for s in plan.stages for kind in KINDS})
    return pool.run(measure, plans[0], cells, repeats)


def profile_of(rounds: Sequence[Sequence[Measured]]) -> Profile:
    """Return the profile that follows from measurements: the mean over ranks, the median over rounds.

    Copy lanes and collectives get no processor core of their own here, so a set of operations that run at once takes
    turns: each member is slowed by the size of the set. That is an assumption, the only number not measured.
    """
    found = {
        name: tuple(_typical([[rank[name][part] for rank in ranks] for ranks in rounds]) for part in range(len(times)))
        for name, times in rounds[0][0].items()
    }
    rates = {name: _rates(*found[name]) for name in LINKS}
    links = MeasuredLinks(
        {(1, 2): rates["all-gather"]}, rates["copy"], rates["copy"], rates["reduce-scatter"], rates["all-reduce"]
    )
    layers = {key: pair for key, pair in found.items() if isinstance(key, tuple)}
    taking_turns = Interference.of({subset: [float(len(subset))] * len(subset) for subset in SUBSETS})
    operators = LayerTable({}, {}, False, layers, links)  # type: ignore[arg-type]
    cluster = Cluster(CLUSTER, 1, 2, float(2**34), links, taking_turns, operators)
    return Profile(cluster, found["adam"][0], rates["send"])


def _typical(rounds: Sequence[Sequence[float]]) -> float:
    return statistics.median(statistics.fmean(ranks) for ranks in rounds)


def _rates(small_s: float, large_s: float) -> Rates:
    """Return bandwidth (B/s) and latency (s) from the times of both message sizes."""
    small, large = _MESSAGES
    bandwidth = (large - small) / max(large_s - small_s, 1e-9)
    return bandwidth, max(0.0, small_s - small / bandwidth)


def measure(plan: Plan, cells: Sequence[Cell], repeats: int) -> Measured:
    """Measure on this rank while the others do the same.

    Returns forward and backward of every cell, the times of a small and a large message of every link, and under
    "adam" the seconds per element of an optimizer step.
    """
    layers: Measured = {cell: _layer_s(plan, cell, repeats) for cell in cells}
    return layers | _links(repeats) | {"adam": (_adam_s(repeats),)}


def _links(repeats: int) -> Measured:
    lanes = make_lanes(Trace(0, torch.device("cpu"), enabled=False), torch.device("cpu"))
    half = [torch.ones(size // 8) for size in _MESSAGES]
    full = [torch.ones(size // 4) for size in _MESSAGES]
    # Enough memory to copy from and to that it never lies in the cache, as what a plan offloads does not.
    cold = [[torch.ones(size // 4) for _ in range(2 * _COLD // size)] for size in _MESSAGES]
    turns = [itertools.cycle(zip(buffers[::2], buffers[1::2], strict=True)) for buffers in cold]

    def copy(index: int) -> None:
        source, target = next(turns[index])
        lanes["swap-in"].submit("copy", lambda: target.copy_(source)).wait()

    operations: dict[str, Callable[[int], object]] = {
        "all-gather": lambda i: lanes["unshard"].submit("", lambda: all_gather(full[i], half[i])).wait(),
        "reduce-scatter": lambda i: lanes["reduce"].submit("", lambda: reduce_scatter(half[i], full[i])).wait(),
        "send": lambda i: _send(full[i]),
        "all-reduce": lambda i: dist.all_reduce(full[i]),
        "copy": copy,
    }
    # A collective's cost is (n-1)/n of the bytes over the bandwidth in the model; a copy moves all of them.
    links: Measured = {}
    for name in LINKS:
        share = 1.0 if name in ("copy", "send") else 2.0
        small, large = (_seconds(partial(operations[name], index), 4 * repeats) for index in range(2))
        links[name] = (small, small + share * (large - small))
    for lane in lanes.values():
        lane.close()
    return links


def _send(x: Tensor) -> None:
    """Exchange a message with the other rank, in both directions at once."""
    peer = 1 - dist.get_rank()
    receiver = torch.empty_like(x)
    for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, x, peer), dist.P2POp(dist.irecv, receiver, peer)]):
        work.wait()


def _adam_s(repeats: int, elements: int = 1 << 20) -> float:
    parameter = torch.nn.Parameter(torch.zeros(elements))
    parameter.grad = torch.ones(elements)
    return _seconds(torch.optim.Adam([parameter], fused=True).step, repeats) / elements


def _layer_s(plan: Plan, cell: Cell, repeats: int) -> tuple[float, float]:
    """Return the seconds of a layer's forward and backward, gradients added to existing ones."""
    kind, batch, tp = cell
    module = make_module(plan, kind, _AllRanks(tp), ScoreBuffer())
    initialize(module, 0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    spec = plan.model
    leading = (batch, spec.seq_len) if spec.attention == "flash" else (spec.seq_len, batch)
    tokens = torch.zeros((batch, spec.seq_len), dtype=torch.int64)
    times: tuple[list[float], list[float]] = [], []
    for _ in range(repeats + 1):
        hidden = torch.randn((*leading, spec.shape.hidden)).to(DTYPES[spec.dtype]).requires_grad_()
        inputs = {"embedding": (tokens,), "head": (hidden, tokens)}.get(kind, (hidden,))
        dist.barrier()
        started_s = time.perf_counter()
        output = module(*inputs)
        middle_s = time.perf_counter()
        output.backward(torch.ones_like(output))
        times[0].append(middle_s - started_s)
        times[1].append(time.perf_counter() - middle_s)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _seconds(operation: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        dist.barrier()
        started_s = time.perf_counter()
        operation()
        times.append(time.perf_counter() - started_s)
    return statistics.median(times[1:])
