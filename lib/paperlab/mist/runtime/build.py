"""Builds one rank of a plan: its modules with their tensor-parallel weights, partitions, rings, groups and lanes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from paperlab.mist.blocks import DTYPES, Embedding, Head, ScoreBuffer, initialize
from paperlab.mist.collectives import Alone, Group
from paperlab.mist.plan import Plan, StagePlan
from paperlab.mist.runtime.activations import storage_keys
from paperlab.mist.runtime.groups import PipelineLinks, Place, RankGroup, groups_of_stage, local_device, locate, world
from paperlab.mist.runtime.lanes import Lane, make_lanes
from paperlab.mist.runtime.memory import MemoryLedger
from paperlab.mist.runtime.optimizer import Adam
from paperlab.mist.runtime.partition import ModuleState, Ring
from paperlab.mist.runtime.trace import Trace


@dataclass(frozen=True)
class Options:
    """How to run a plan.

    decoupled: take each module's optimizer step before its next forward pass, not all of them after the last backward.
    overlap: let side lanes run beside the compute lane. account: track live storages (slows small operators down).
    trace: record spans. device: cpu (gloo) or cuda (NCCL). seed: of weights and tokens.
    """

    decoupled: bool = True
    overlap: bool = True
    account: bool = True
    trace: bool = True
    device: str = "cpu"
    seed: int = 0
    adam: Adam = field(default_factory=Adam)


@dataclass
class Built:
    """One rank, ready to run."""

    plan: Plan
    options: Options
    place: Place
    layout: StagePlan
    kinds: list[str]
    states: list[ModuleState]
    links: PipelineLinks
    reducer: RankGroup
    ledger: MemoryLedger
    trace: Trace
    lanes: dict[str, Lane]

    def __post_init__(self) -> None:
        self.device = self.ledger.device
        self.parameter_storages = storage_keys(state.weight for state in self.states)
        blocks = [index for index, kind in enumerate(self.kinds) if kind == "block"]
        self._checkpointed = set(blocks[len(blocks) - self.layout.checkpointed :])

    def checkpointed(self, index: int) -> bool:
        """Whether module `index` keeps only its input: the stage's last blocks do (§2.1)."""
        return index in self._checkpointed

    def activation_offload(self, index: int) -> float:
        """Return the fraction of what module `index` saves that goes to host memory; embedding and head keep all."""
        return self.layout.activation_offload if self.kinds[index] == "block" else 0.0

    def reduce(self, state: ModuleState) -> None:
        """Sum a module's gradients over the data-parallel ranks, each keeping its slice if anything is sharded."""
        if state.zero:
            self.reducer.reduce_scatter(state.grad)
        else:
            self.reducer.all_reduce(state.grad)


def check_runnable(plan: Plan, ranks: int) -> None:
    """Raise ValueError where the plan cannot run on `ranks` ranks; those it does not need stay idle."""
    if ranks < plan.cluster.gpus:
        raise ValueError(f"the plan needs {plan.cluster.gpus} ranks; {ranks} are here")
    shapes = {(stage.micro_batch, stage.dp, stage.tp) for stage in plan.stages}
    if len(shapes) > 1:
        raise ValueError(f"stages differ in (micro_batch, dp, tp): {sorted(shapes)}; the runtime needs them equal")


def build(plan: Plan, options: Options) -> Built:
    """Set up this process's rank; the default process group must exist if the plan has more than one rank.

    Raises:
        ValueError: the plan does not fit the ranks, has stages of different shape, or the device is not there.
    """
    rank = world()[0]
    place = locate(plan, rank)
    layout = plan.stages[place.stage]
    device = local_device(options.device, rank % max(torch.cuda.device_count(), 1))
    trace, ledger = Trace(rank, device, options.trace), MemoryLedger(device)
    tensor, unshard, reducer = _groups(place, layout)
    kinds = _kinds(plan, place.stage)
    modules = _modules(plan, place, kinds, tensor, options.seed, device)
    states = _states(modules, kinds, layout, unshard, ledger, DTYPES[plan.model.dtype])
    links = PipelineLinks(plan, place)
    lanes = make_lanes(trace, device, options.overlap)
    return Built(plan, options, place, layout, kinds, states, links, reducer, ledger, trace, lanes)


def _groups(place: Place, layout: StagePlan) -> tuple[RankGroup, RankGroup, RankGroup]:
    """Return the tensor-parallel group and the data-parallel ones for gathering and for reducing."""
    own = {}
    for purpose, ranks in groups_of_stage(place.first_rank, layout):
        if world()[0] in ranks:
            own[purpose] = RankGroup(purpose, ranks)
    return own["tensor"], own["unshard"], own["reduce"]


def _kinds(plan: Plan, stage: int) -> list[str]:
    last = stage == len(plan.stages) - 1
    return ["embedding"] * (stage == 0) + ["block"] * plan.stages[stage].layers + ["head"] * last


def _modules(
    plan: Plan, place: Place, kinds: list[str], group: RankGroup, seed: int, device: torch.device
) -> list[nn.Module]:
    """Return this rank's modules; a weight depends on the seed and the module's place in the model, not on the plan."""
    before = sum(stage.layers for stage in plan.stages[: place.stage])
    first = 0 if kinds[0] == "embedding" else before + 1  # the model's modules: embedding 0, blocks from 1, the head
    first += seed * (plan.model.layers + 2)
    buffer = ScoreBuffer()
    modules = []
    for number, kind in enumerate(kinds, start=first):
        whole, part = make_module(plan, kind, Alone(), None), make_module(plan, kind, group, buffer)
        modules.append(shard(whole, part, group, number).to(device))
    return modules


def make_module(plan: Plan, kind: str, group: Group, buffer: ScoreBuffer | None) -> nn.Module:
    """Return an uninitialized module of the plan's model."""
    if kind == "block":
        return plan.model.block(group, buffer)
    return Embedding(plan.model, group) if kind == "embedding" else Head(plan.model, group)


@torch.no_grad()
def shard(whole: nn.Module, part: nn.Module, group: RankGroup, seed: int) -> nn.Module:
    """Initialize `whole` from `seed`, copy this rank's cut of every parameter into `part`, and return it."""
    initialize(whole, seed)
    for target, source in zip(part.parameters(), whole.parameters(), strict=True):
        tp_dim: int | None = target.tp_dim  # type: ignore[attr-defined]
        target.copy_(source if tp_dim is None else source.chunk(group.size, tp_dim)[group.rank])
    return part


def _states(
    modules: list[nn.Module],
    kinds: list[str],
    layout: StagePlan,
    group: RankGroup,
    ledger: MemoryLedger,
    dtype: torch.dtype,
) -> list[ModuleState]:
    """Partition all modules; embedding and head stay on the device, at most their optimizer states sharded (§2.1)."""
    blocks = [sum(p.numel() for p in m.parameters()) for m, kind in zip(modules, kinds, strict=True) if kind == "block"]
    padded = -(-blocks[0] // layout.dp) * layout.dp
    sharded = layout.dp > 1
    rings = (
        Ring(ledger, padded, dtype) if layout.weight_offload or (layout.zero >= 3 and sharded) else None,
        Ring(ledger, padded, dtype) if layout.grad_offload or (layout.zero >= 2 and sharded) else None,
    )
    offloads = (layout.weight_offload, layout.grad_offload, layout.optimizer_offload)
    return [
        ModuleState(module, index, group, layout.zero, offloads, ledger, rings)
        if kind == "block"
        else ModuleState(module, index, group, min(layout.zero, 1), (0.0, 0.0, 0.0), ledger, (None, None))
        for index, (module, kind) in enumerate(zip(modules, kinds, strict=True))
    ]
