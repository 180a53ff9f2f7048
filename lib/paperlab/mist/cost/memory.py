"""Device memory of a stage, put together from traced sizes (§2.8), and where its peak lies.

A `Moment` is a point of the iteration at which memory may peak: what is running there, and the bytes that live then,
part by part. All parts broadcast over C numbers of checkpointed layers (rows) and K policies (columns).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from paperlab.mist.cost.setting import LayerCost, Policies, Setting

# The artifact's safety factors on predicted peaks: what allocators and kernels need beyond live tensors.
_PER_MODEL_WIDTH, _PER_SEQUENCE, _UNIT = 0.005, 0.045, 2048


@dataclass(frozen=True)
class Position:
    """A stage's place: its layers, how many later stages there are, and whether it holds embedding and head."""

    layers: int
    later_stages: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Moment:
    """Bytes alive while `running` in `phase`; `parts` maps what they are to arrays that broadcast."""

    phase: str
    running: str
    parts: dict[str, Any]

    @property
    def bytes(self) -> Any:
        """The sum of all parts."""
        return reduce(np.add, sorted(self.parts.values(), key=np.size))  # small arrays first: fewer large sums


def moments(setting: Setting, policies: Policies, position: Position, checkpointed: Any) -> list[Moment]:
    """Return every moment at which a stage's memory may peak; `checkpointed` is a number or an array of C numbers.

    A moment that does not exist for some number of checkpointed layers has -inf bytes there.
    """
    return _Stage(setting, policies, position, np.asarray(checkpointed).reshape(-1, 1)).moments()


def peaks(setting: Setting, policies: Policies, position: Position, checkpointed: Any) -> tuple[Any, Any]:
    """Return forward and backward peak in bytes, each C x K."""
    found = moments(setting, policies, position, checkpointed)
    return tuple(
        reduce(np.maximum, [moment.bytes for moment in found if moment.phase == phase])
        for phase in ("forward", "backward")
    )


def safety_factor(setting: Setting, policies: Policies, position: Position) -> Any:
    """Return the factor (array of K) by which the artifact inflates a peak before it compares with capacity."""
    shape = setting.spec.shape
    factor = 1 + _PER_MODEL_WIDTH * max(0.0, shape.hidden / _UNIT - 1)
    factor += _PER_SEQUENCE * max(0.0, setting.spec.seq_len / _UNIT - 1)
    factor += 0.04 * (setting.tp > 1) + 0.01 * (setting.micro_batch >= 4)
    if setting.stages > 1:
        factor += 0.025 + 0.01 * (not position.first and not position.last)
    sharded = setting.dp > 1
    return (
        factor
        + 0.025 * (policies.weight_offload > 0)
        + 0.025 * (policies.grad_offload > 0)
        + 0.03 * (policies.optimizer_offload > 0)
        + 0.04 * (policies.activation_offload > 0)
        + 0.025 * ((policies.zero >= 3) & sharded)
        + 0.025 * ((policies.zero >= 2) & sharded)
    )


class _Stage:
    def __init__(self, setting: Setting, policies: Policies, position: Position, count: Any) -> None:
        self.setting, self.policies, self.position, self.count = setting, policies, position, count
        block = setting.layers["block"].sizes
        on_device = 1 - policies.activation_offload
        self.kept = on_device * block.saved
        self.input = on_device * block.input
        self.states = {**self._block_states(), **self._end_states("embedding", position.first)}
        self.states |= self._end_states("head", position.last)
        self.static = self.states | self._between_micro_batches()

    def _block_states(self) -> dict[str, Any]:
        policies, block, dp = self.policies, self.setting.layers["block"], self.setting.dp
        layers, weights, optimizer = self.position.layers, block.sizes.weights, block.optimizer_bytes
        shard = [np.where(policies.zero >= level, dp, 1) for level in (3, 2, 1)]
        own_weights = weights / shard[0] * (1 - policies.weight_offload)
        own_grads = weights / shard[1] * (1 - policies.grad_offload)
        own_optimizer = optimizer / shard[2] * (1 - policies.optimizer_offload)
        # Where a rank does not hold a layer's weights (gradients) whole, two buffers take turns in gathering them.
        gathers_weights = (policies.weight_offload > 0) | (shard[0] > 1)
        gathers_grads = (policies.grad_offload > 0) | (shard[1] > 1)
        return {
            "weights": layers * own_weights,
            "gradients": layers * own_grads,
            "optimizer states": layers * own_optimizer,
            "gathering buffers": 2 * weights * (1.0 * gathers_weights + gathers_grads),
            "_update": optimizer / shard[2] - own_optimizer,
        }

    def _end_states(self, kind: str, present: bool) -> dict[str, Any]:
        """Embedding and head: never offloaded, optimizer states sharded (ZeRO-1) where any are."""
        if not present:
            return {}
        layer = self.setting.layers[kind]
        optimizer = layer.optimizer_bytes / np.where(self.policies.zero >= 1, self.setting.dp, 1)
        return {f"{kind}'s states": 2 * layer.sizes.weights + optimizer}

    def _between_micro_batches(self) -> dict[str, Any]:
        """What earlier micro-batches keep while they are in flight, and the buffers of messages between stages."""
        block = self.setting.layers["block"].sizes
        depth = min(self.position.later_stages, self.setting.accumulation - 1)
        parts = {
            "saved of earlier micro-batches": depth * self._saved(self.position.layers, self.count),
            "messages between stages": 2 * depth * block.output,
            "scratch of attention": block.workspace,
        }
        if self.position.first:
            embedding = self.setting.layers["embedding"].sizes.saved
            parts["saved of the embedding"] = (depth + 1) * embedding
        return parts

    def _saved(self, layers: Any, checkpointed: Any) -> Any:
        return checkpointed * self.input + (layers - checkpointed) * self.kept

    def moments(self) -> list[Moment]:
        """Forward and backward of the last block of each kind, of the embedding and of the head."""
        layers, count = self.position.layers, self.count
        block = self.setting.layers["block"].sizes
        some, kept = count >= 1, layers - count
        before_last = np.where(some, self._saved(layers - 1, count - 1), self._saved(layers - 1, 0))
        found = [
            self._moment("forward", "block", self._saved(kept - 1, 0), block.forward_peak, kept >= 1),
            self._moment("forward", "checkpointed block", before_last, block.recomputed_forward_peak, some),
            self._moment("backward", "block", before_last, block.backward_peak, ~some),
            self._moment("backward", "recomputed block", before_last, block.recomputed_backward_peak, some),
        ]
        every = self._saved(layers, count)
        if self.position.last:
            found += self._end_moments("head", self.setting.layers["head"], every)
        if self.position.first:
            found += self._end_moments("embedding", self.setting.layers["embedding"], 0.0)
        return found

    def _end_moments(self, kind: str, layer: LayerCost, saved: Any) -> list[Moment]:
        return [
            self._moment("forward", kind, saved, layer.sizes.forward_peak, True, in_block=False),
            self._moment("backward", kind, saved, layer.sizes.backward_peak, True, in_block=False),
        ]

    def _moment(self, phase: str, running: str, saved: Any, peak: Any, exists: Any, *, in_block: bool = True) -> Moment:
        block = self.setting.layers["block"].sizes
        parts = dict(self.static)
        update = parts.pop("_update")  # the first forward also brings one layer's optimizer states together
        if phase == "forward":
            parts["optimizer states in use"] = update
        parts["saved of this micro-batch"] = saved
        parts[f"{running}, running"] = np.where(exists, peak, -np.inf)
        if in_block:
            # While a block runs, the activations of its neighbor are on their way to or from the host.
            neighbor = np.where(self.count >= self.position.layers - 1, block.input, block.saved)
            parts["activations on their way"] = self.policies.activation_offload * neighbor
        if phase == "backward" and not self.position.last:
            parts["received gradient"] = block.output
        return Moment(phase, running, parts)
