"""What an iteration costs at each stage of a replica: Eq. 1's terms for any batch, and what the equation leaves out.

Beside the equation's terms stand the head on the last stage, elementwise kernels, overheads per layer and iteration,
latencies of collectives, and the hidden states' way to the next stage. `Node.ideal` sets them to zero but for the head.
"""

from __future__ import annotations

from typing import NamedTuple

from paperlab.seesaw.hardware import Node
from paperlab.seesaw.layout import Layout, layer_matrices
from paperlab.serving.work import StepShape
from paperlab.transformer import ModelShape, element_bytes


class LayerTime(NamedTuple):
    """Seconds of one layer of a micro-batch on a rank, by cause; `total` adds them up."""

    weights: float  # linear layers, as far as they wait for weights
    compute: float  # linear layers and attention, as far as they compute
    attention: float  # attention, as far as it waits for keys and values
    elementwise: float
    network: float
    overhead: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.compute + self.attention + self.elementwise + self.network + self.overhead


class Prices:
    """The pipeline prices of one layout (of one replica) of one model on one kind of node."""

    def __init__(self, model: ModelShape, layout: Layout, node: Node) -> None:
        layout = layout.check(model).replica
        self.model, self.layout, self.node, self.stages = model, layout, node, layout.pp
        shards = layout.shards(model)
        size, tp = element_bytes(node.dtype), layout.tp
        self.layers = [len(layout.layers(model, stage)) for stage in range(layout.pp)]
        self._load_bytes = max(shard.weight_bytes(node.dtype) for shard in shards)
        self._kv_bytes = shards[0].kv_token_bytes(node.dtype) / len(shards[0].layers)  # of a token in one layer
        self._weights_s = size * layer_matrices(model) / tp / node.memory_Bps
        self._token_s = 2 * layer_matrices(model) / tp / node.linear_flops_per_s
        self._pair_s = 4 * model.q_width / tp / node.attention_flops_per_s
        self._qo_bytes = size * model.q_width / tp
        passes = node.hidden_passes * model.hidden + node.ffn_passes * model.ffn / tp
        self._elementwise_s = size * passes / node.memory_Bps
        hidden = size * model.hidden
        self._network_s = 2 * hidden / node.all_reduce.algorithm_Bps(tp)
        self._call_s = 2 * node.all_reduce.call_s(tp)
        self._hop_s = hidden / tp / node.peer_Bps if layout.pp > 1 else 0.0
        self._head_s = 2 * model.vocab * model.hidden / tp / node.linear_flops_per_s
        self._head_weights_s = size * model.vocab * model.hidden / tp / node.memory_Bps

    @property
    def load_s(self) -> float:
        """Seconds to reload the largest shard from host memory, each rank over its own link."""
        return self._load_bytes / self.node.host_Bps

    def layer(self, step: StepShape) -> LayerTime:
        """Return the seconds of one layer by cause."""
        tokens, bandwidth = step.tokens, self.node.memory_Bps
        linear_s = tokens * self._token_s
        bound = linear_s >= self._weights_s
        weights, compute, attention = (0.0, linear_s, 0.0) if bound else (self._weights_s, 0.0, 0.0)
        if step.prefill_tokens:
            stored = step.prefill_context + step.prefill_tokens
            moved_s = (self._kv_bytes * stored + self._qo_bytes * step.prefill_tokens) / bandwidth
            pairs_s = self._pair_s * step.prefill_pairs
            compute, attention = (
                (compute + pairs_s, attention) if pairs_s >= moved_s else (compute, attention + moved_s)
            )
        if step.decode_tokens:
            moved_s, pairs_s = self._kv_bytes * step.decode_context / bandwidth, self._pair_s * step.decode_context
            compute, attention = (
                (compute + pairs_s, attention) if pairs_s >= moved_s else (compute, attention + moved_s)
            )
        network = tokens * self._network_s + self._call_s
        return LayerTime(weights, compute, attention, tokens * self._elementwise_s, network, self.node.layer_overhead_s)

    def compute_s(self, step: StepShape) -> list[float]:
        """Return the seconds of an iteration at each stage, the way to the next stage included."""
        layer_s, hop_s = self.layer(step).total, step.tokens * self._hop_s
        seconds = [layers * layer_s + hop_s for layers in self.layers]
        seconds[0] += self.node.step_overhead_s
        seconds[-1] += self.head_s(step.logits) - hop_s
        return seconds

    def head_s(self, rows: int) -> float:
        """Return the seconds of the head for `rows` positions."""
        return max(self._head_weights_s, rows * self._head_s) if rows else 0.0

    def write_through_s(self, step: StepShape) -> list[float]:
        """Return the seconds that each stage's host links need for the step's new keys and values."""
        per_layer_s = step.prefill_tokens * self._kv_bytes / self.node.host_Bps
        return [layers * per_layer_s for layers in self.layers]

    def tail_s(self, step: StepShape) -> float:
        """Return the seconds of one layer's copy, which the last layer has nothing left to hide behind.

        A layer's copy starts after its QKV projection, so its own attention and MLP hide most of it; all of it is
        counted, which errs on the slow side.
        """
        return step.prefill_tokens * self._kv_bytes / self.node.host_Bps


def kv_tokens(model: ModelShape, node: Node, *layouts: Layout, staging_tokens: int = 0) -> int:
    """Return the tokens of keys and values that one replica holds in the last of `layouts`.

    Each rank keeps room for its largest shard among `layouts` (they replace each other in place) and for the keys and
    values of `staging_tokens` on their way out in the first of them. 0 where the weights do not fit.
    """
    resident = layouts[-1].replica
    tokens = []
    for rank, shard in enumerate(resident.shards(model)):
        weights = max(layout.replica.shard(model, rank).weight_bytes(node.dtype) for layout in layouts)
        staging = staging_tokens * layouts[0].replica.shard(model, rank).kv_token_bytes(node.dtype)
        tokens.append((node.usable_bytes - weights - staging) / shard.kv_token_bytes(node.dtype))
    return max(0, int(min(tokens)))
