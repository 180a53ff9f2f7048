"""Parameters, FLOPs and bytes of a `ModelShape`. Free of torch; counts may be NumPy arrays and broadcast.

Conventions: one multiply-add is 2 FLOPs; only matrix products count (norms, activations, softmax, rotary
embedding and bias additions are elementwise and cost memory traffic instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paperlab.transformer.shapes import ModelShape

BYTES_PER_ELEMENT = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}


@dataclass(frozen=True)
class Parameters:
    """Parameter counts: `attention`, `mlp` and `norms` of one layer, the rest of the whole model."""

    embedding: int
    attention: int
    mlp: int
    norms: int
    layers: int
    final_norm: int
    head: int

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return self.attention + self.mlp + self.norms

    @property
    def total(self) -> int:
        """Parameters of the model; tied weights count once, with the embedding."""
        return self.embedding + self.layers * self.layer + self.final_norm + self.head


@dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of one forward pass: `qkv`, `attention`, `out` and `mlp` of one layer, the rest of the whole model."""

    embedding: Any
    qkv: Any
    attention: Any
    out: Any
    mlp: Any
    layers: int
    head: Any

    @property
    def layer(self) -> Any:
        """FLOPs of one layer."""
        return self.qkv + self.attention + self.out + self.mlp

    @property
    def total(self) -> Any:
        """FLOPs of the whole pass."""
        return self.embedding + self.layers * self.layer + self.head


def element_bytes(dtype: str) -> int:
    """Return the bytes of one element of `dtype`; ValueError lists the known names."""
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(BYTES_PER_ELEMENT)}")
    return BYTES_PER_ELEMENT[dtype]


def parameters(shape: ModelShape) -> Parameters:
    """Return the parameter counts of `shape`, part by part."""
    hidden = shape.hidden
    attention = _qkv_weights(shape) + _out_weights(shape)
    attention += shape.qkv_bias * (shape.q_width + 2 * shape.kv_width) + shape.out_bias * hidden
    attention += shape.qk_norm * 2 * shape.head_dim
    mlp = _mlp_weights(shape) + shape.mlp_bias * (_mlp_matrices(shape) - 1) * shape.ffn + shape.mlp_bias * hidden
    return Parameters(
        embedding=_embedding(shape),
        attention=attention,
        mlp=mlp,
        norms=shape.norms_per_layer * _norm(shape),
        layers=shape.layers,
        final_norm=0 if shape.post_norm else _norm(shape),
        head=_head(shape),
    )


def forward_flops(
    shape: ModelShape,
    new_tokens: Any,
    context: Any = 0,
    *,
    batch: Any = 1,
    logits: Any = None,
    skip_masked: bool = False,
) -> ForwardFlops:
    """Return the FLOPs of a forward pass over `new_tokens` per sequence that follow `context` cached ones.

    Prefill: `forward_flops(shape, S)`; decode: `forward_flops(shape, 1, context)`. `logits` is the number of
    positions per sequence that pass the head (default: all of them; a server needs 1). Attention counts every
    query-key pair, as dense kernels compute them; `skip_masked` leaves out the pairs a causal mask hides.
    """
    tokens = batch * new_tokens
    pairs = new_tokens * (context + new_tokens)
    if skip_masked and shape.causal:
        pairs = new_tokens * context + new_tokens * (new_tokens + 1) // 2
    head_positions = batch * (new_tokens if logits is None else logits)
    patches = batch * (new_tokens - 1) if shape.inputs == "patches" else 0
    return ForwardFlops(
        embedding=2 * patches * shape.vocab * shape.hidden,
        qkv=2 * tokens * _qkv_weights(shape),
        attention=4 * batch * pairs * shape.q_width,
        out=2 * tokens * _out_weights(shape),
        mlp=2 * tokens * _mlp_weights(shape),
        layers=shape.layers,
        head=_head_flops(shape, head_positions, batch),
    )


def training_flops(forward: ForwardFlops, recompute: bool = False) -> Any:
    """Return the FLOPs of a training step: backward is twice `forward`; `recompute` runs all layers once more."""
    return 3 * forward.total + (forward.layers * forward.layer if recompute else 0)


def weight_bytes(shape: ModelShape, dtype: str) -> int:
    """Return the bytes of all parameters in `dtype`."""
    return parameters(shape).total * element_bytes(dtype)


def kv_bytes_per_token(shape: ModelShape, dtype: str) -> int:
    """Return the bytes that one token's keys and values take over all layers."""
    return 2 * shape.layers * shape.kv_width * element_bytes(dtype)


def hidden_bytes(shape: ModelShape, tokens: Any, dtype: str) -> Any:
    """Return the bytes of the residual stream of `tokens`: the message of pipeline and tensor parallelism."""
    return tokens * shape.hidden * element_bytes(dtype)


def logits_bytes(shape: ModelShape, tokens: Any, dtype: str) -> Any:
    """Return the bytes of the logits of `tokens`."""
    return tokens * shape.vocab * element_bytes(dtype)


def step_bytes(shape: ModelShape, dtype: str, new_tokens: Any, context: Any = 0, *, batch: Any = 1) -> Any:
    """Return the least device-memory traffic of a forward pass: weights once, the cache read and extended.

    Of the embedding table only the rows of the new tokens are read, unless it also serves as the head. The
    residual stream and other activations are taken to stay in caches.
    """
    size = element_bytes(dtype)
    counts = parameters(shape)
    streamed = counts.total - (0 if shape.tied_embeddings and shape.head != "none" else counts.embedding)
    rows = batch * new_tokens * shape.hidden
    return (streamed + rows) * size + batch * (context + new_tokens) * kv_bytes_per_token(shape, dtype)


def _qkv_weights(shape: ModelShape) -> int:
    return shape.hidden * (shape.q_width + 2 * shape.kv_width)


def _out_weights(shape: ModelShape) -> int:
    return shape.q_width * shape.hidden


def _mlp_matrices(shape: ModelShape) -> int:
    return 3 if shape.mlp == "gated" else 2


def _mlp_weights(shape: ModelShape) -> int:
    return _mlp_matrices(shape) * shape.hidden * shape.ffn


def _norm(shape: ModelShape) -> int:
    return shape.hidden if shape.norm == "rmsnorm" else 2 * shape.hidden


def _embedding(shape: ModelShape) -> int:
    table = shape.vocab * shape.hidden
    if shape.inputs == "patches":
        table += 2 * shape.hidden  # the projection's bias and the class token
    rows = shape.token_types + (shape.max_positions if shape.position == "learned" else 0)
    return table + rows * shape.hidden + (_norm(shape) if shape.post_norm else 0)


def _head(shape: ModelShape) -> int:
    projection = 0 if shape.tied_embeddings else shape.vocab * shape.hidden
    transform = shape.hidden * (shape.hidden + 1)
    return {
        "lm": projection,
        "mlm": transform + _norm(shape) + projection + shape.vocab,
        "pooler": transform,
        "none": 0,
    }[shape.head]


def _head_flops(shape: ModelShape, positions: Any, batch: Any) -> Any:
    transform, projection = 2 * shape.hidden**2, 2 * shape.hidden * shape.vocab
    return {
        "lm": positions * projection,
        "mlm": positions * (transform + projection),
        "pooler": batch * transform,
        "none": 0,
    }[shape.head]
