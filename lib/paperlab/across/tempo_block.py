"""Mist's block with Tempo's operators, and what they cost: all that Mist's tracer and tuner need to plan with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from paperlab.across import operators
from paperlab.mist.blocks import Block, Mlp, Norm, ScoreBuffer
from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.operators import Latency, OperatorModel
from paperlab.mist.models import ModelSpec
from paperlab.mist.symbolic.trace import LayerTrace, symbolic_trace
from paperlab.mist.symbolic.tracer import Unit
from paperlab.tempo.ops.gelu import inplace_gelu

if TYPE_CHECKING:
    from paperlab.mist.collectives import Group

# Tape node of Tempo's operator -> that of the framework's, whose measured latency it is priced by.
COUNTERPART = {"_InplaceGELUBackward": "gelu", "tempo_layer_norm": "native_layer_norm"}


class TempoMlp(Mlp):
    """The MLP with Tempo's in-place GELU; a gated one has no GELU and stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Return this rank's part of the MLP's contribution."""
        return super().forward(x) if self.gate is not None else self.down(inplace_gelu(self.up(x)))


class TempoNorm(Norm):
    """Tempo's in-place LayerNorm; RMSNorm, for which Tempo has no operator, stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return super().forward(x) if self.bias is None else operators.layer_norm(x, self.weight, self.bias, self.eps)[0]


class TempoBlock(Block):
    """Mist's block with Tempo's GELU and LayerNorm.

    Attention stays Mist's: its models train without attention dropout, and then Tempo's attention keeps what the
    framework keeps, P and V.
    """

    def __init__(self, spec: ModelSpec, group: Group, buffer: ScoreBuffer | None = None) -> None:
        super().__init__(spec, group, buffer)
        self.attention_norm = TempoNorm(spec)
        self.mlp_norm = TempoNorm(spec) if self.mlp_norm is not None else None
        self.mlp = TempoMlp(spec, group)


@dataclass(frozen=True)
class TempoSpec(ModelSpec):
    """The same model trained with Tempo's operators."""

    @classmethod
    def of(cls, spec: ModelSpec) -> TempoSpec:
        """Return `spec` with Tempo's operators."""
        return cls(spec.shape, spec.seq_len, spec.attention, spec.dtype)

    @property
    def plain(self) -> ModelSpec:
        """The same model with the framework's operators."""
        return ModelSpec(self.shape, self.seq_len, self.attention, self.dtype)

    def block(self, group: Group, buffer: ScoreBuffer | None = None) -> Block:
        """Return one rank's part of a block with Tempo's operators."""
        return TempoBlock(self, group, buffer)


@dataclass(frozen=True)
class TempoOperators(OperatorModel):
    """Latencies with Tempo's operators among them.

    Each takes the framework operator's latency times the traffic it was traced with over that operator's, pass by
    pass, since all of them are bound by memory. `overhead` adds a share of the whole layer's compute to every layer
    with such an operator, for what the traffic does not show.
    """

    plain: Mapping[str, Unit] = field(default_factory=dict)
    overhead: float = 0.0

    def unit_s(self, unit: Unit, batch: int, tp: int) -> Latency:
        """Return forward and backward seconds of one operator."""
        if unit.kind not in COUNTERPART:
            return super().unit_s(unit, batch, tp)
        known = self.plain[COUNTERPART[unit.kind]]
        forward, backward = (
            float(unit.touched_bytes[phase].at(batch, tp)) / float(known.touched_bytes[phase].at(batch, tp))
            for phase in ("forward", "backward")
        )
        forward_s, backward_s = super().unit_s(known, batch, tp)
        return forward * forward_s, backward * backward_s

    def layer_s(self, trace: LayerTrace, batch: int, tp: int) -> Latency:
        """Return forward and backward compute seconds of a layer."""
        forward_s, backward_s = super().layer_s(trace, batch, tp)
        factor = 1 + self.overhead * any(unit.kind in COUNTERPART for unit in trace.units)
        return factor * forward_s, factor * backward_s


def with_tempo(spec: ModelSpec, cluster: Cluster, overhead: float = 0.0) -> tuple[TempoSpec, Cluster]:
    """Return model and cluster for Mist's tuner, with Tempo's operators in the one and their prices in the other.

    Raises:
        ValueError: a negative overhead.
    """
    if not overhead >= 0:
        raise ValueError(f"overhead is {overhead}; give a share of the layer's compute time, 0 or more")
    plain = {unit.kind: unit for unit in symbolic_trace(spec)["block"].units}
    priced = TempoOperators(
        cluster.operators.rows, cluster.operators.rates, cluster.operators.thresholds, plain, overhead
    )
    return TempoSpec.of(spec), replace(cluster, operators=priced)
