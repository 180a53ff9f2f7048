"""Where a rank stands in a plan, and its torch.distributed groups: tensor, data and pipeline parallelism.

Ranks are numbered stage by stage; within a stage tensor-parallel neighbors lie side by side. The data-parallel ranks
have one communicator per lane, so that collectives of different lanes never wait for each other's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from paperlab.mist.plan import Plan, StagePlan

TIMEOUT_S = 25.0  # a collective whose peer died fails within this time
# torch 2.13 renamed both.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_groups: dict[tuple[str, tuple[int, ...]], dist.ProcessGroup] = {}


def world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks; (0, 1) without torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@dataclass(frozen=True)
class Place:
    """Coordinates of a rank: stage, data-parallel and tensor-parallel rank, and the first rank of the stage."""

    stage: int
    dp_rank: int
    tp_rank: int
    first_rank: int


def locate(plan: Plan, rank: int) -> Place:
    """Return the place of `rank` in `plan`."""
    first = 0
    for stage, layout in enumerate(plan.stages):
        if rank < first + layout.gpus:
            return Place(stage, (rank - first) // layout.tp, (rank - first) % layout.tp, first)
        first += layout.gpus
    raise ValueError(f"rank is {rank}; the plan uses ranks 0 to {first - 1}")


class RankGroup:
    """Ranks that communicate on one lane; the `Group` of the models. A group of one does nothing."""

    def __init__(self, purpose: str, ranks: Sequence[int]) -> None:
        self.ranks, self.size = tuple(ranks), len(ranks)
        self.rank = self.ranks.index(world()[0])
        self.group = _groups[purpose, self.ranks] if self.size > 1 else None

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Reduce `x` over the ranks in place, by "sum" or "max"; returns `x`."""
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM, group=self.group)
        return x

    def all_gather(self, full: Tensor) -> None:
        """Fill `full` (flat, divisible by `size`), of which each rank holds its own slice in place."""
        if self.size > 1:
            all_gather(full, self.slice(full), group=self.group)

    def reduce_scatter(self, full: Tensor) -> None:
        """Sum `full` over the ranks into each rank's own slice, in place; the other slices become scratch."""
        if self.size > 1:
            reduce_scatter(self.slice(full), full, group=self.group)

    def slice(self, full: Tensor) -> Tensor:
        """Return this rank's part of a flat tensor."""
        return full.chunk(self.size)[self.rank]


class PipelineLinks:
    """Sends to and receives from the neighboring stages; a send may still be under way when the next step runs."""

    def __init__(self, plan: Plan, place: Place) -> None:
        layout = plan.stages[place.stage]
        rank = world()[0]
        self.before = rank - layout.gpus if place.stage > 0 else None
        self.behind = rank + layout.gpus if place.stage < len(plan.stages) - 1 else None
        self.group = _groups["pipeline", tuple(range(plan.cluster.gpus))] if len(plan.stages) > 1 else None
        self._sending: list[tuple[dist.Work, Tensor]] = []

    def exchange(
        self,
        send: Sequence[tuple[Tensor, int | None]] = (),
        receive: Sequence[tuple[Tensor, int | None]] = (),
    ) -> None:
        """Start all transfers as one batch and wait for what is received."""
        outgoing = [(x.contiguous(), peer) for x, peer in send if peer is not None]
        incoming = [(x, peer) for x, peer in receive if peer is not None]
        ops = [dist.P2POp(dist.isend, x, peer, self.group) for x, peer in outgoing]
        ops += [dist.P2POp(dist.irecv, x, peer, self.group) for x, peer in incoming]
        if not ops:
            return
        works = dist.batch_isend_irecv(ops)
        if len(works) < len(ops):  # NCCL returns one handle for the batch
            for work in works:
                work.wait()
            return
        for work in works[len(outgoing) :]:
            work.wait()
        self.flush()
        self._sending = [(work, x) for work, (x, _) in zip(works, outgoing, strict=False)]

    def flush(self) -> None:
        """Wait until everything sent has left."""
        for work, _ in self._sending:
            work.wait()
        self._sending = []


def groups_of_stage(first: int, layout: StagePlan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (purpose, ranks) of all communicators within a stage that begins at rank `first`."""
    for dp_rank in range(layout.dp):
        yield "tensor", tuple(first + dp_rank * layout.tp + tp_rank for tp_rank in range(layout.tp))
    for tp_rank in range(layout.tp):
        replicas = tuple(first + dp_rank * layout.tp + tp_rank for dp_rank in range(layout.dp))
        yield from (("unshard", replicas), ("reduce", replicas))


def make_groups(plan: Plan) -> None:
    """Make the plan's communicators; every rank of the world calls this, with the same plans in the same order.

    They are kept for the life of the process, as they hold connections.
    """
    wanted: list[tuple[str, tuple[int, ...]]] = []
    for index, layout in enumerate(plan.stages):
        wanted += groups_of_stage(sum(stage.gpus for stage in plan.stages[:index]), layout)
    if len(plan.stages) > 1:
        wanted.append(("pipeline", tuple(range(plan.cluster.gpus))))
    for purpose, ranks in wanted:
        if len(ranks) > 1 and (purpose, ranks) not in _groups:
            _groups[purpose, ranks] = dist.new_group(list(ranks), timedelta(seconds=TIMEOUT_S))
            if world()[0] in ranks and dist.get_backend() == "nccl":
                dist.barrier(_groups[purpose, ranks])  # NCCL wants every rank at a communicator's first use


def local_device(kind: str, local_rank: int = 0) -> torch.device:
    """Return the device a rank computes on; ValueError for `cuda` without one, or an unknown kind."""
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device is {kind!r}; choose cpu or cuda")
    if kind == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(f"device is 'cuda'; local rank {local_rank} has none, {torch.cuda.device_count()} are here")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
