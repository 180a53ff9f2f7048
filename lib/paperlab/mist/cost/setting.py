"""What all stages of one candidate share: batch, parallel sizes, mesh, and the numbers that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.mist.clusters import Cluster
from paperlab.mist.models import OPTIMIZER_BYTES_PER_PARAMETER, ModelSpec
from paperlab.mist.plan import StagePlan
from paperlab.mist.symbolic.compile import LayerSizes, compiled
from paperlab.mist.symbolic.trace import symbolic_trace


@dataclass(frozen=True)
class LayerCost:
    """One kind of layer: compute and tensor-parallel communication of one micro-batch (s), and its sizes (bytes).

    `accumulate_s` is the time to add its gradients to those of earlier micro-batches.
    """

    forward_s: float
    backward_s: float
    forward_tp_s: float
    backward_tp_s: float
    accumulate_s: float
    sizes: LayerSizes
    optimizer_bytes: float


@dataclass(frozen=True)
class Setting:
    """Model, cluster and the variables that one tuner pass holds fixed: micro-batch, dp, tp, G and stages."""

    spec: ModelSpec
    cluster: Cluster
    micro_batch: int
    dp: int
    tp: int
    accumulation: int
    stages: int

    @property
    def nodes(self) -> int:
        """Nodes of one stage's mesh; a stage spans nodes only if it fills them.

        Raises:
            ValueError: the stage has more devices than a node and does not fill whole ones.
        """
        gpus, per_node = self.dp * self.tp, self.cluster.gpus_per_node
        if gpus <= per_node:
            return 1
        if gpus % per_node:
            raise ValueError(f"a stage of {gpus} devices does not fill nodes of {per_node}")
        return gpus // per_node

    @property
    def dp_group(self) -> tuple[int, int]:
        """Nodes and devices per node of a data-parallel group, which spans nodes first."""
        nodes = min(self.dp, self.nodes)
        return nodes, self.dp // nodes

    @cached_property
    def layers(self) -> dict[str, LayerCost]:
        """Embedding, block and head."""
        return _layers(self.spec, self.cluster.operators, self.cluster.links, self.micro_batch, self.tp)

    @property
    def accumulated_share(self) -> float:
        """Share of micro-batches whose gradients are added to earlier ones."""
        return (self.accumulation - 1) / self.accumulation


def _layers(spec: ModelSpec, operators: Any, links: Any, batch: int, tp: int) -> dict[str, LayerCost]:
    return _cached_layers(_Key(spec, operators, links, batch, tp))


class _Key:
    """Hashes device models by identity: they hold mappings."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self._hash = (parts[0], id(parts[1]), id(parts[2]), parts[3], parts[4])

    def __hash__(self) -> int:
        return hash(self._hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._hash == other._hash


@cache
def _cached_layers(key: _Key) -> dict[str, LayerCost]:
    spec, operators, links, batch, tp = key.parts
    functions, costs = compiled(spec), {}
    for kind, trace in symbolic_trace(spec).items():
        forward_s, backward_s = operators.layer_s(trace, batch, tp)
        forward_tp_s, backward_tp_s = (
            sum(links.all_reduce_s(float(size.at(batch, tp)), 1, tp) for size in messages)
            for messages in (trace.forward_messages, trace.backward_messages)
        )
        sizes = functions[kind](batch, tp)
        accumulate_s = operators.accumulate_s(trace.weights, spec.bytes_per_element, batch, tp)
        optimizer = sizes.weights / spec.bytes_per_element * OPTIMIZER_BYTES_PER_PARAMETER
        costs[kind] = LayerCost(forward_s, backward_s, forward_tp_s, backward_tp_s, accumulate_s, sizes, optimizer)
    return costs


@dataclass(frozen=True)
class Policies:
    """Arrays of K memory policies: ZeRO level and the four offload ratios."""

    zero: NDArray[np.int64]
    weight_offload: NDArray[np.float64]
    grad_offload: NDArray[np.float64]
    optimizer_offload: NDArray[np.float64]
    activation_offload: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.zero)

    @classmethod
    def of(cls, *stages: StagePlan) -> Policies:
        """Return the policies of given stages."""
        columns = ("weight_offload", "grad_offload", "optimizer_offload", "activation_offload")
        values = [np.array([float(getattr(stage, name)) for stage in stages]) for name in columns]
        return cls(np.array([stage.zero for stage in stages]), *values)

    def take(self, index: Any) -> Policies:
        """Return the policies at `index` (integers or a mask)."""
        return Policies(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def stage(self, index: int, layers: int, checkpointed: int, setting: Setting) -> StagePlan:
        """Return policy `index` as a stage of a plan."""
        ratios = (
            self.weight_offload, self.grad_offload, self.optimizer_offload, self.activation_offload,
        )  # fmt: skip
        sizes = (setting.micro_batch, setting.dp, setting.tp)
        return StagePlan(layers, checkpointed, *sizes, int(self.zero[index]), *(float(r[index]) for r in ratios))
