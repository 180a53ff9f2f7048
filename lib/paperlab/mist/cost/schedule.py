"""Times of the overlap-centric schedule (§2.4): what runs beside each layer's compute, and what it costs.

A stage's micro-batch is summed from its layers. Layers differ by position: a middle layer computes beside the
prefetch for its successor and the copies of its predecessor; the first and the last lack one side, and what they
cannot hide is exposed before or after them. Of the micro-batches, the first carries the optimizer step and its
transfers, and the last the gradient reduction: `stable` is every other one, `edge` the first forward and the last
backward together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.mist.cost.setting import Policies, Setting

Array = NDArray[Any]


@dataclass(frozen=True)
class Transfers:
    """Seconds of one block's transfers under every policy (arrays of K), each alone."""

    gather_s: Array  # all-gather of the weights
    scatter_s: Array  # reduce-scatter of the gradients
    reduce_s: Array  # of the last micro-batch: reduce-scatter if optimizer states are sharded, else all-reduce
    shards_weights: Array  # 1.0 or 0.0
    shards_grads: Array
    shards_optimizer: Array
    weights_in_s: Array
    weights_out_s: Array
    grads_in_s: Array
    grads_out_s: Array
    optimizer_in_s: Array
    optimizer_out_s: Array
    activations_in_s: Array  # of a block that is not checkpointed; of one that is: the next two
    activations_out_s: Array
    inputs_in_s: Array
    inputs_out_s: Array


def transfers(setting: Setting, policies: Policies) -> Transfers:
    """Return the transfer times of one block of `setting` under `policies`."""
    links, block, dp = setting.cluster.links, setting.layers["block"], setting.dp
    weights, group = block.sizes.weights, setting.dp_group
    sharded = [np.where((policies.zero >= level) & (dp > 1), 1.0, 0.0) for level in (3, 2, 1)]
    ws, gs, os = sharded
    full = (weights, weights, block.optimizer_bytes)
    kept = [size / np.where(shard > 0, dp, 1) for size, shard in zip(full, sharded, strict=True)]
    moved = [
        kept[0] * policies.weight_offload,
        kept[1] * policies.grad_offload,
        kept[2] * policies.optimizer_offload,
        block.sizes.saved * policies.activation_offload,
        block.sizes.input * policies.activation_offload,
    ]
    both_ways = [copy(size) for size in moved for copy in (links.to_device_s, links.to_host_s)]
    scatter_s = links.reduce_scatter_s(weights, *group)
    reduce_s = np.where(os > 0, scatter_s, links.all_reduce_s(weights, *group))
    gather_s = np.full(len(policies), links.all_gather_s(weights, *group))
    return Transfers(gather_s, np.full(len(policies), scatter_s), reduce_s, ws, gs, os, *both_ways)


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one layer in one position, forward and backward together, under every policy."""

    stable_s: Array
    edge_s: Array

    @property
    def extra_s(self) -> Array:
        """What the first and the last micro-batch cost on top."""
        return self.edge_s - self.stable_s

    def __add__(self, other: LayerTimes) -> LayerTimes:
        return LayerTimes(self.stable_s + other.stable_s, self.edge_s + other.edge_s)


@dataclass(frozen=True)
class BlockTimes:
    """Blocks by position, each as (kept, checkpointed); `exposed_before_backward_s` can hide behind a head."""

    middle: tuple[LayerTimes, LayerTimes]
    first: tuple[LayerTimes, LayerTimes]
    last: tuple[LayerTimes, LayerTimes]
    only: tuple[LayerTimes, LayerTimes]
    exposed_before_backward_s: tuple[Array, Array]


class _Slots:
    """The overlap slots of one setting, each computed once: positions share most of them."""

    def __init__(self, setting: Setting, policies: Policies) -> None:
        self._known: dict[tuple[Any, ...], Array] = {}
        self.moves = transfers(setting, policies)
        self.block, self.model = setting.layers["block"], setting.cluster.interference
        self.backward_s = self.block.backward_s + self.block.accumulate_s * setting.accumulated_share
        move = self.moves
        self.fetch_s = (move.gather_s * move.shards_weights, move.weights_in_s)  # for forward, stable: G, H
        self.fetch_first_s = (move.gather_s * move.shards_optimizer, move.optimizer_in_s + move.grads_in_s)
        self.reduce_s = (move.scatter_s * move.shards_grads, move.reduce_s)  # stable, last micro-batch

    def stored_s(self, checkpointed: bool, first: bool) -> Array:
        """Copies to the host after a layer's forward."""
        move = self.moves
        saved = move.inputs_out_s if checkpointed else move.activations_out_s
        return saved + move.optimizer_out_s + move.weights_out_s if first else saved

    def fetch_backward_s(self, checkpointed: bool) -> tuple[Array, Array]:
        """All-gather and copies before a layer's backward."""
        move = self.moves
        saved = move.inputs_in_s if checkpointed else move.activations_in_s
        return move.gather_s * move.shards_weights, move.weights_in_s + move.grads_in_s + saved

    def _once(self, slot: tuple[Any, ...], compute: Any, gather: Any, copies_in: Any, copies_out: Any) -> Array:
        """Return the time of a slot named `slot`."""
        if slot not in self._known:
            self._known[slot] = self.model.time_s(compute, gather, copies_in, copies_out)
        return self._known[slot]

    def forward_s(self, checkpointed: bool, first: bool, prefetch: bool, store: bool) -> Array:
        """A layer's forward beside its successor's prefetch and its predecessor's store."""
        gather, copies = self.fetch_first_s if first else self.fetch_s
        out = self.stored_s(checkpointed, first)
        slot = ("forward", checkpointed and store, first, prefetch, store)
        overlapped = self._once(slot, self.block.forward_s, gather * prefetch, copies * prefetch, out * store)
        return overlapped + self.block.forward_tp_s

    def run_backward_s(self, checkpointed: bool, last: bool, prefetch: bool, reduce: bool) -> Array:
        """A layer's backward beside its predecessor's prefetch and its successor's gradient reduction."""
        gather, copies = self.fetch_backward_s(checkpointed)
        compute_s = self.backward_s + self.block.forward_s * checkpointed
        collective = gather * prefetch + self.reduce_s[last] * reduce
        slot = ("backward", checkpointed, last, prefetch, reduce)
        overlapped = self._once(slot, compute_s, collective, copies * prefetch, self.moves.grads_out_s * reduce)
        return overlapped + self.block.backward_tp_s + self.block.forward_tp_s * checkpointed

    def exposed_s(self, slot: tuple[Any, ...], gather: Any, copies_in: Any, copies_out: Any) -> Array:
        """Transfers with nothing to hide behind."""
        return self._once(slot, 0.0, gather, copies_in, copies_out)

    def before_backward_s(self, checkpointed: bool) -> Array:
        """What the stage's last layer needs before its backward."""
        return self.exposed_s(("before backward", checkpointed), *self.fetch_backward_s(checkpointed), 0.0)

    def layer(self, checkpointed: bool, has_before: bool, has_after: bool) -> LayerTimes:
        """A layer with or without neighbors in its stage, exposed transfers included."""
        total = []
        for edge in (False, True):
            seconds = self.forward_s(checkpointed, edge, prefetch=has_after, store=has_before)
            seconds = seconds + self.run_backward_s(checkpointed, edge, prefetch=has_before, reduce=has_after)
            if not has_before:
                fetch = self.fetch_first_s if edge else self.fetch_s
                seconds = seconds + self.exposed_s(("before forward", edge), *fetch, 0.0)
                reduce = (self.reduce_s[edge], 0.0, self.moves.grads_out_s)
                seconds = seconds + self.exposed_s(("after backward", edge), *reduce)
            if not has_after:
                stored = self.stored_s(checkpointed, edge)
                seconds = seconds + self.exposed_s(("after forward", checkpointed, edge), 0.0, 0.0, stored)
                seconds = seconds + self.before_backward_s(checkpointed)
            total.append(seconds)
        return LayerTimes(*total)


def block_times(setting: Setting, policies: Policies) -> BlockTimes:
    """Return the times of blocks in every position under every policy; arrays of K, s."""
    slots = _Slots(setting, policies)

    def both(has_before: bool, has_after: bool) -> tuple[LayerTimes, LayerTimes]:
        return slots.layer(False, has_before, has_after), slots.layer(True, has_before, has_after)

    exposed = slots.before_backward_s(False), slots.before_backward_s(True)
    return BlockTimes(both(True, True), both(False, True), both(True, False), both(False, False), exposed)


def stage_times(
    setting: Setting, blocks: BlockTimes, layers: int, checkpointed: Any, *, first: bool, last: bool
) -> tuple[Array, Array]:
    """Return t and d of a stage: seconds of a stable micro-batch, and the first and last one's on top.

    `checkpointed` is a column of C numbers; the results are C x K. With one micro-batch (G = 1) it is first and
    last at once, so that t is its time and d is 0.
    """
    count = np.asarray(checkpointed).reshape(-1, 1)
    some, every = count >= 1, count >= layers

    def pick(pair: tuple[LayerTimes, LayerTimes], condition: Array) -> LayerTimes:
        kept, recomputed = pair
        return LayerTimes(
            np.where(condition, recomputed.stable_s, kept.stable_s), np.where(condition, recomputed.edge_s, kept.edge_s)
        )

    if layers == 1:
        total = pick(blocks.only, some)
    else:
        middle = layers - 2
        recomputed = np.clip(count - 1, 0, middle)
        kept_times, recomputed_times = blocks.middle
        total = LayerTimes(
            recomputed * recomputed_times.stable_s + (middle - recomputed) * kept_times.stable_s,
            recomputed * recomputed_times.edge_s + (middle - recomputed) * kept_times.edge_s,
        )
        total = total + pick(blocks.first, every) + pick(blocks.last, some)
    hidden_s = np.where(some, blocks.exposed_before_backward_s[1], blocks.exposed_before_backward_s[0])
    ends: list[tuple[Any, Any]] = [_embedding_s(setting)] if first else []
    ends += [_head_s(setting, hidden_s)] if last else []
    stable_s = total.stable_s + sum(seconds for seconds, _ in ends)
    extra_s = total.extra_s + sum(extra for _, extra in ends)
    return (stable_s + extra_s, np.zeros_like(extra_s)) if setting.accumulation == 1 else (stable_s, extra_s)


def _compute_s(setting: Setting, kind: str) -> tuple[float, float]:
    layer = setting.layers[kind]
    backward_s = layer.backward_s + layer.accumulate_s * setting.accumulated_share
    return layer.forward_s + layer.forward_tp_s, backward_s + layer.backward_tp_s


def _ends_collectives_s(setting: Setting, kind: str) -> tuple[float, float]:
    """All-gather and reduce-scatter of the embedding's or the head's weights, which are at ZeRO-1 always."""
    links, size = setting.cluster.links, setting.layers[kind].sizes.weights
    return links.all_gather_s(size, *setting.dp_group), links.reduce_scatter_s(size, *setting.dp_group)


def _embedding_s(setting: Setting) -> tuple[float, float]:
    """The embedding's collectives have nothing to hide behind."""
    return sum(_compute_s(setting, "embedding")), sum(_ends_collectives_s(setting, "embedding"))


def _head_s(setting: Setting, hidden_s: Array) -> tuple[Array, float]:
    """The head's backward hides the last block's prefetch, the last block's compute hides the head's collectives."""
    forward_s, backward_s = _compute_s(setting, "head")
    gather_s, scatter_s = _ends_collectives_s(setting, "head")
    block = setting.layers["block"]
    extra_s = max(0.0, gather_s - block.forward_s) + max(0.0, scatter_s - block.backward_s)
    return forward_s + np.maximum(0.0, backward_s - hidden_s), extra_s
