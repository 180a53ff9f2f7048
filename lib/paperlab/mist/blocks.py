"""The models as torch modules: embedding, one block, head; tensor-parallel, for real ranks and symbolic traces.

Hidden states are B S H with flash attention and S B H with math attention: each is the layout in which attention
takes its heads without copies. Legend: B batch, S sequence, H hidden, A heads, G key/value heads, D head size.

Every parameter has `tp_dim`: the dimension that tensor parallelism cuts into equal parts, or None if replicated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paperlab.mist import kernels
from paperlab.mist.collectives import Group, cross_entropy, enter, leave, local_labels
from paperlab.mist.models import ModelSpec

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}


class ScoreBuffer:
    """The scratch input of the scores' batched product, shared by all blocks of a stage (Megatron-LM's buffer)."""

    def __init__(self) -> None:
        self.tensor: Tensor | None = None

    def get(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialized tensor of `shape`, the same one at every call with that shape."""
        if self.tensor is None or self.tensor.shape != shape:
            self.tensor = torch.empty(shape, dtype=like.dtype, device=like.device)
        return self.tensor


def _parameter(shape: tuple[int, ...], tp_dim: int | None, dtype: torch.dtype) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(shape, dtype=dtype))
    parameter.tp_dim = tp_dim  # type: ignore[attr-defined]
    return parameter


class Linear(nn.Module):
    """A product with a weight cut over the group by output (`tp_dim` 0) or by input rows (1); no bias."""

    def __init__(self, spec: ModelSpec, width_in: int, width_out: int, tp_dim: int, group: Group) -> None:
        super().__init__()
        shape = [width_out, width_in]
        shape[tp_dim] = shape[tp_dim] // group.size
        self.weight = _parameter(tuple(shape), tp_dim, DTYPES[spec.dtype])

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ; a partial sum where the weight is cut by input."""
        return F.linear(x, self.weight)


class Norm(nn.Module):
    """LayerNorm or RMSNorm, as the shape says."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.eps = spec.shape.norm_eps
        self.weight = _parameter((spec.shape.hidden,), None, DTYPES[spec.dtype])
        self.bias = (
            _parameter((spec.shape.hidden,), None, DTYPES[spec.dtype]) if spec.shape.norm == "layernorm" else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        if self.bias is None:
            return kernels.rms_norm(x, self.weight, self.eps)[0]
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Causal attention; queries, keys and values lie together per key/value head, so a rank's rows are contiguous."""

    def __init__(self, spec: ModelSpec, group: Group, buffer: ScoreBuffer) -> None:
        super().__init__()
        shape = spec.shape
        self.flash, self.buffer, self.seq_len = spec.attention == "flash", buffer, spec.seq_len
        self.groups, self.head_dim = shape.kv_heads // group.size, shape.head_dim
        self.queries = shape.heads // shape.kv_heads  # per key/value head
        self.theta = shape.rope_theta if shape.position == "rope" else None
        self.qkv = Linear(spec, shape.hidden, shape.q_width + 2 * shape.kv_width, 0, group)
        self.out = Linear(spec, shape.q_width, shape.hidden, 1, group)

    def forward(self, x: Tensor) -> Tensor:
        """Return this rank's part of the attention's contribution."""
        qkv = self.qkv(x).unflatten(-1, (self.groups, self.queries + 2, self.head_dim))
        if self.theta is not None:
            qkv = kernels.rotate(qkv, self.queries + 1, 1 if self.flash else 0, self.theta)
        q, k, v = qkv.split((self.queries, 1, 1), dim=-2)
        if self.queries > 1:  # explicit copies: implicit ones would depend on whether some size is 1
            q, k, v = (part.expand_as(q).contiguous() for part in (q, k, v))
        del qkv
        return self.out(self._flash(q, k, v) if self.flash else self._math(q, k, v))

    def reserve(self, batch: int) -> None:
        """Allocate the scratch that math attention needs for `batch` sequences, before the first forward does."""
        if not self.flash:
            heads = batch * self.groups * self.queries
            self.buffer.get((heads, self.seq_len, self.seq_len), self.qkv.weight)

    def _flash(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.flatten(2, 3).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)

    def _math(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        S, B = q.shape[:2]
        q, k, v = (x.flatten(1, 3).transpose(0, 1) for x in (q, k, v))
        buffer = self.buffer.get((q.shape[0], S, S), q)
        scores = torch.baddbmm(buffer, q, k.transpose(1, 2), beta=0, alpha=1 / math.sqrt(self.head_dim))
        probabilities = kernels.causal_softmax(scores)
        del scores
        mixed = torch.bmm(probabilities, v).transpose(0, 1)
        return mixed.clone(memory_format=torch.contiguous_format).view(S, B, -1)


class Mlp(nn.Module):
    """GELU between two products, or SiLU-gated with three."""

    def __init__(self, spec: ModelSpec, group: Group) -> None:
        super().__init__()
        shape = spec.shape
        self.gate = Linear(spec, shape.hidden, shape.ffn, 0, group) if shape.mlp == "gated" else None
        self.up = Linear(spec, shape.hidden, shape.ffn, 0, group)
        self.down = Linear(spec, shape.ffn, shape.hidden, 1, group)

    def forward(self, x: Tensor) -> Tensor:
        """Return this rank's part of the MLP's contribution."""
        if self.gate is None:
            return self.down(F.gelu(self.up(x)))
        return self.down(kernels.swiglu(self.gate(x), self.up(x)))


class Block(nn.Module):
    """One transformer block: two residual branches in a row, or side by side behind one norm."""

    def __init__(self, spec: ModelSpec, group: Group, buffer: ScoreBuffer | None = None) -> None:
        super().__init__()
        self.group, self.parallel = group, spec.shape.parallel_attention
        self.attention_norm = Norm(spec)
        self.attention = Attention(spec, group, buffer or ScoreBuffer())
        self.mlp_norm = Norm(spec) if spec.shape.norms_per_layer == 2 else None
        self.mlp = Mlp(spec, group)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next hidden state, of the shape of `x`."""
        entered = enter(self.attention_norm(x), self.group)
        if self.parallel:
            other = entered if self.mlp_norm is None else enter(self.mlp_norm(x), self.group)
            return x + leave(self.attention(entered) + self.mlp(other), self.group)
        x = x + leave(self.attention(entered), self.group)
        del entered
        assert self.mlp_norm is not None
        return x + leave(self.mlp(enter(self.mlp_norm(x), self.group)), self.group)


class Embedding(nn.Module):
    """Token embedding (the paper's pre-layer), cut over the group by vocabulary."""

    def __init__(self, spec: ModelSpec, group: Group) -> None:
        super().__init__()
        self.group, self.batch_first = group, spec.attention == "flash"
        self.weight = _parameter((spec.shape.vocab // group.size, spec.shape.hidden), 0, DTYPES[spec.dtype])

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """Return hidden states in the layout of the blocks."""
        tokens = tokens_BS if self.batch_first else tokens_BS.t()
        local, outside = local_labels(tokens, self.weight.shape[0], self.group)
        rows = F.embedding(local, self.weight).masked_fill_(outside.unsqueeze(-1), 0)
        return leave(rows, self.group)


class Head(nn.Module):
    """Vocabulary projection and mean cross entropy (the paper's post-layer), cut over the group by vocabulary."""

    def __init__(self, spec: ModelSpec, group: Group) -> None:
        super().__init__()
        self.group, self.batch_first = group, spec.attention == "flash"
        self.project = Linear(spec, spec.shape.hidden, spec.shape.vocab, 0, group)

    def forward(self, x: Tensor, labels_BS: Tensor) -> Tensor:
        """Return the mean loss over all tokens, a scalar in fp32."""
        labels = labels_BS if self.batch_first else labels_BS.t()
        return cross_entropy(self.project(enter(x, self.group)), labels, self.group)


def initialize(module: nn.Module, seed: int, std: float = 0.02) -> None:
    """Fill all parameters from one seeded generator: norms with ones and zeros, the rest N(0, std²)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                values = torch.randn(parameter.shape, generator=generator) * std
                parameter.copy_(values.to(parameter.dtype))
