"""The paper's cost analysis: demands of one layer (Table 3), stage time and throughput (Eqs. 1-2), batch bound (A.3).

The printed cells of attention's arithmetic lost their superscripts in the text at hand and would be dimensionally
wrong if read literally; here stand the causal half for prefill, 2·b·hq·s²·d, and the full count for decode, 4·b·hq·s·d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from paperlab.seesaw.hardware import Node
from paperlab.seesaw.layout import Layout, layer_matrices
from paperlab.transformer import ModelShape, element_bytes, kv_bytes_per_token

PHASES = ("prefill", "decode")


class Demand(NamedTuple):
    """What one unsharded layer asks for in one forward pass of a whole batch (Table 3); FLOPs and bytes."""

    linear_bytes: float
    linear_flops: float
    attention_bytes: float
    attention_flops: float
    network_bytes: float  # both all-reduces of hidden states


class Components(NamedTuple):
    """Seconds of one layer, before sharding but for the network, whose bandwidth depends on TP (Table 2's T's)."""

    linear_move_s: float
    linear_compute_s: float
    attention_move_s: float
    attention_compute_s: float
    network_s: float


@dataclass(frozen=True)
class Uniform:
    """A batch of `batch` sequences in flight on the whole cluster, each of `length` tokens (b and s of Table 2).

    In prefill each has `length` new tokens; in decode one, after `length` stored ones.
    """

    phase: str
    batch: float
    length: int

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"Uniform: phase is {self.phase!r}; use prefill or decode")
        if not (self.batch > 0 and self.length >= 1):
            raise ValueError(f"Uniform: batch is {self.batch}, length {self.length}; both must be positive")


def demand(model: ModelShape, work: Uniform, dtype: str = "fp16") -> Demand:
    """Return Table 3's row for `work`: FLOPs and bytes of one layer, unsharded."""
    size, batch, length = element_bytes(dtype), work.batch, work.length
    weights, dim = layer_matrices(model), model.head_dim
    tokens = batch * length if work.phase == "prefill" else batch
    if work.phase == "prefill":
        moved = size * batch * length * (model.heads + 2 * model.kv_heads) * dim
        flops = 2 * batch * model.heads * length**2 * dim
    else:
        moved = 2 * size * batch * length * model.kv_heads * dim
        flops = 4 * batch * model.heads * length * dim
    return Demand(size * weights, 2 * weights * tokens, moved, flops, 2 * size * tokens * model.heads * dim)


def components(model: ModelShape, node: Node, work: Uniform, tp: int) -> Components:
    """Return the five times of Table 2 for one layer on one device's rates, and B_ar(TP) for the network."""
    asked = demand(model, work, node.dtype)
    return Components(
        asked.linear_bytes / node.memory_Bps,
        asked.linear_flops / node.linear_flops_per_s,
        asked.attention_bytes / node.memory_Bps,
        asked.attention_flops / node.attention_flops_per_s,
        asked.network_bytes / node.all_reduce.algorithm_Bps(tp) if tp > 1 else 0.0,
    )


def stage_time_s(model: ModelShape, layout: Layout, node: Node, work: Uniform) -> float:
    """Return Eq. 1's T_stage: seconds that one pipeline stage is busy with its micro-batch of b / (PP·DP)."""
    parts = components(model, node, work, layout.tp)
    everywhere = layout.ranks
    bracket = (
        max(parts.linear_move_s / layout.tp, parts.linear_compute_s / everywhere)
        + max(parts.attention_move_s, parts.attention_compute_s) / everywhere
        + parts.network_s / (layout.pp * layout.dp)
    )
    return model.layers / layout.pp * bracket


def throughput(model: ModelShape, layout: Layout, node: Node, work: Uniform) -> float:
    """Return sequences per second by Eq. 1: each T_stage completes one of the PP micro-batches, b / PP sequences.

    In decode this counts tokens per second, one per sequence and pass.
    """
    return work.batch / layout.pp / stage_time_s(model, layout, node, work)


def additive_throughput(model: ModelShape, layout: Layout, node: Node, work: Uniform) -> float:
    """Return Eq. 2's simplification of `throughput`: sums in place of the rooflines' maxima."""
    parts = components(model, node, work, layout.tp)
    shared = parts.linear_compute_s + parts.attention_move_s + parts.attention_compute_s
    bracket = parts.linear_move_s / layout.tp + shared / layout.ranks + parts.network_s / (layout.pp * layout.dp)
    return work.batch / (model.layers * bracket)


def kv_memory_bytes(model: ModelShape, layout: Layout, memory_bytes: float, dtype: str = "fp16") -> float:
    """Return M_kv, what a GPU's memory leaves for keys and values beside the layers' weights (A.3); may be negative."""
    weights = element_bytes(dtype) * model.layers * layer_matrices(model)
    return memory_bytes - weights / layout.replica_ranks


def max_batch(model: ModelShape, layout: Layout, memory_bytes: float, length: float, dtype: str = "fp16") -> float:
    """Return b_max, the sequences of `length` tokens that all replicas can hold (A.3); 0 where weights do not fit."""
    free = kv_memory_bytes(model, layout, memory_bytes, dtype)
    per_sequence = kv_bytes_per_token(model, dtype) * length
    return max(0.0, layout.dp * layout.replica_ranks * free / per_sequence)
