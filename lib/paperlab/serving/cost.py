"""What one iteration asks of a device: FLOPs and bytes per operator, from the model's shape.

Operators and conventions are those of the Nexus paper's cost model (§4.1): linear layers move their parameters once
per iteration, attention moves the cached keys and values, activations stay on chip. The head is added; it counts
only the rows whose next token comes out.
"""

from __future__ import annotations

from typing import NamedTuple

from paperlab.serving.work import StepShape
from paperlab.transformer import ModelShape, element_bytes, kv_bytes_per_token

OPERATORS = ("qkv", "prefill_attention", "decode_attention", "out", "ffn", "head")


class Demand(NamedTuple):
    """FLOPs and bytes of one operator over all layers, on one device of a tensor-parallel group."""

    operator: str
    flops: float
    moved_bytes: float


class ModelCost:
    """Demands of any iteration of one model on each of `tp` devices; precomputed, since simulators ask often."""

    def __init__(
        self,
        shape: ModelShape,
        dtype: str = "bf16",
        tp: int = 1,
        *,
        weight_element_bytes: float | None = None,
        kv_element_bytes: float | None = None,
        arithmetic: str | None = None,
    ) -> None:
        """Prepare for `shape` with weights and cache in `dtype`.

        Args:
            shape: the model's shape.
            dtype: of hidden states, and of everything that the next three do not change.
            tp: devices that share the model.
            weight_element_bytes: of an element of the layers' matrices, where they are quantized; the head is not.
            kv_element_bytes: of an element of the cached keys and values, where they are quantized.
            arithmetic: the format at whose peak the devices compute, where it is not `dtype`.

        Raises:
            ValueError: the heads do not divide by `tp`, or an element has no bytes.
        """
        if tp < 1 or shape.heads % tp or (shape.kv_heads % tp and tp % shape.kv_heads):
            raise ValueError(f"tp is {tp}; {shape.name} has {shape.heads} heads and {shape.kv_heads} key/value heads")
        self.shape, self.dtype, self.tp, self.arithmetic = shape, dtype, tp, arithmetic or dtype
        size, layers = element_bytes(dtype), shape.layers
        weight_size = size if weight_element_bytes is None else weight_element_bytes
        if not (weight_size > 0 and (kv_element_bytes is None or kv_element_bytes > 0)):
            raise ValueError(f"bytes per element are {weight_element_bytes} and {kv_element_bytes}; give positive ones")
        matrices = 3 if shape.mlp == "gated" else 2
        self._weights = {  # elements of all layers
            "qkv": layers * shape.hidden * (shape.q_width + 2 * shape.kv_width),
            "out": layers * shape.q_width * shape.hidden,
            "ffn": layers * matrices * shape.hidden * shape.ffn,
            "head": shape.vocab * shape.hidden,
        }
        self._linear = {
            name: (2 * count / tp, (size if name == "head" else weight_size) * count / tp)
            for name, count in self._weights.items()
        }
        self.spared_bytes = (size - weight_size) * (sum(self._weights.values()) - self._weights["head"]) / tp
        self._pair_flops = 4 * shape.q_width * layers / tp
        token_bytes = kv_bytes_per_token(shape, dtype)
        if kv_element_bytes is not None:
            token_bytes *= kv_element_bytes / size  # type: ignore[assignment]
        self._token_bytes = token_bytes / min(tp, shape.kv_heads)
        self.hidden_bytes = size * shape.hidden

    @property
    def weight_bytes(self) -> float:
        """Bytes of the matrices on one device."""
        return sum(moved for _, moved in self._linear.values())

    @property
    def kv_token_bytes(self) -> float:
        """Bytes that one token's keys and values take on one device."""
        return self._token_bytes

    def demands(self, step: StepShape) -> list[Demand]:
        """Return the demand of every operator that `step` runs."""
        tokens, found = step.tokens, []
        for name, rows in (("qkv", tokens), ("out", tokens), ("ffn", tokens), ("head", step.logits)):
            if rows:
                flops, moved = self._linear[name]
                found.append(Demand(name, flops * rows, moved))
        if step.prefill_tokens:
            # One sweep over what is stored and what is new.
            stored = step.prefill_context + step.prefill_tokens
            pairs = step.prefill_pairs
            found.append(Demand("prefill_attention", self._pair_flops * pairs, self._token_bytes * stored))
        if step.decode_tokens:
            context = step.decode_context
            found.append(Demand("decode_attention", self._pair_flops * context, self._token_bytes * context))
        return found

    def communicated_bytes(self, step: StepShape) -> float:
        """Return the bytes of hidden states that tensor parallelism all-reduces in one iteration (0 for tp = 1)."""
        return 2.0 * self.shape.layers * step.tokens * self.hidden_bytes if self.tp > 1 else 0.0
