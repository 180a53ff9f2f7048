"""One small Llama/Qwen-style decoder: grouped-query attention, rotary positions, RMSNorm, SwiGLU.

Attention is an argument: `attend(layer, q, k, v)` gets the rotated queries and keys of one layer and returns the
mixed values, so a cache (dense here, paged in a serving engine) is whatever stands behind that call. Modules carry
Hugging Face's names, so weights are found under known names. Nothing fixes the number of heads but the weights
themselves: a tensor-parallel shard is the same module with fewer rows.

Legend: B batch, S new tokens, T cached and new tokens, H hidden, A query heads, G key/value heads, D head size,
V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paperlab.transformer.shapes import ModelShape

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Rotary = tuple[Tensor, Tensor]


def causal_attention(layer: int, q_BSAD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor) -> Tensor:
    """Mix values under a causal mask whose last query sees all T keys; returns B S A D."""
    S, T = q_BSAD.shape[1], k_BTGD.shape[1]
    mask_ST = None
    if 1 < S < T:
        mask_ST = torch.ones(S, T, dtype=torch.bool, device=q_BSAD.device).tril(T - S)
    q, k, v = (x.transpose(1, 2) for x in (q_BSAD, k_BTGD, v_BTGD))
    mixed = F.scaled_dot_product_attention(q, k, v, mask_ST, is_causal=S == T, enable_gqa=True)
    return mixed.transpose(1, 2)


class DenseCache:
    """Keys and values of all layers in one dense block per layer; pass it as `attend`.

    `length` counts the tokens held; it grows when the last layer has run.
    """

    def __init__(self, shape: ModelShape, batch: int, capacity: int, like: Tensor) -> None:
        """Reserve room for `capacity` tokens of `batch` sequences, in the dtype and on the device of `like`."""
        size = (shape.layers, batch, capacity, shape.kv_heads, shape.head_dim)
        self.keys, self.values = like.new_empty(size), like.new_empty(size)
        self.length = 0

    def __call__(self, layer: int, q_BSAD: Tensor, k_BSGD: Tensor, v_BSGD: Tensor) -> Tensor:
        """Append one layer's keys and values and attend to everything held."""
        end = self.length + k_BSGD.shape[1]
        if end > self.keys.shape[2]:
            raise ValueError(f"capacity is {self.keys.shape[2]} tokens; this pass needs {end}")
        self.keys[layer, :, self.length : end] = k_BSGD
        self.values[layer, :, self.length : end] = v_BSGD
        k_BTGD, v_BTGD = self.keys[layer, :, :end], self.values[layer, :, :end]
        if layer == len(self.keys) - 1:
            self.length = end
        return causal_attention(layer, q_BSAD, k_BTGD, v_BTGD)


def rotary_frequencies(shape: ModelShape, device: torch.device | None = None) -> Tensor:
    """Return the head_dim / 2 angular frequencies (fp32, radians per position), Llama-3 scaling included."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device) / shape.head_dim
    frequencies = 1.0 / shape.rope_theta**exponents
    scaling = shape.rope_scaling
    if scaling is None:
        return frequencies
    # Turns within the original context: few (slow) are divided by the factor, many (fast) stay, a ramp between.
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, ramp.clamp(0, 1))


def rotate(x_BSAD: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair (x_i, x_{i + D/2}) by its position's angle."""
    cos_BS1D, sin_BS1D = rotary
    first, second = x_BSAD.chunk(2, dim=-1)
    return x_BSAD * cos_BS1D + torch.cat((-second, first), dim=-1) * sin_BS1D


class Attention(nn.Module):
    """Projections around an attention function."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.q_width, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_width, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(shape.q_width, shape.hidden, bias=shape.out_bias)
        self.q_norm = nn.RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else nn.Identity()

    def forward(self, x_BSH: Tensor, rotary: Rotary, layer: int, attend: Attend) -> Tensor:
        """Return the attention's contribution to the residual stream, B S H."""
        heads = (-1, self.head_dim)
        q_BSAD = rotate(self.q_norm(self.q_proj(x_BSH).unflatten(-1, heads)), rotary)
        k_BSGD = rotate(self.k_norm(self.k_proj(x_BSH).unflatten(-1, heads)), rotary)
        v_BSGD = self.v_proj(x_BSH).unflatten(-1, heads)
        return self.o_proj(attend(layer, q_BSAD, k_BSGD, v_BSGD).flatten(-2))


class Mlp(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=shape.mlp_bias)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=shape.mlp_bias)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=shape.mlp_bias)

    def forward(self, x_BSH: Tensor) -> Tensor:
        """Return the MLP's contribution to the residual stream, B S H."""
        return self.down_proj(F.silu(self.gate_proj(x_BSH)) * self.up_proj(x_BSH))


class Block(nn.Module):
    """One layer: attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x_BSH: Tensor, rotary: Rotary, layer: int, attend: Attend) -> Tensor:
        """Return the residual stream after this layer, B S H."""
        x_BSH = x_BSH + self.self_attn(self.input_layernorm(x_BSH), rotary, layer, attend)
        return x_BSH + self.mlp(self.post_attention_layernorm(x_BSH))


class Decoder(nn.Module):
    """The whole model. `forward` is `embed`, the layers, `head`; a pipeline stage calls the part it owns."""

    def __init__(self, shape: ModelShape) -> None:
        """Build the modules of `shape`; ValueError where it is not of the Llama/Qwen kind."""
        super().__init__()
        _check(shape)
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.lm_head = None if shape.tied_embeddings else nn.Linear(shape.hidden, shape.vocab, bias=False)

    def forward(self, ids_BS: Tensor, positions_BS: Tensor | None = None, attend: Attend = causal_attention) -> Tensor:
        """Return logits B S V. `positions_BS` defaults to 0 … S-1, or to what follows a `DenseCache`'s content."""
        if positions_BS is None:
            start = attend.length if isinstance(attend, DenseCache) else 0
            positions_BS = torch.arange(start, start + ids_BS.shape[1], device=ids_BS.device)[None]
        x_BSH, rotary = self.embed_tokens(ids_BS), self.rotary(positions_BS)
        for layer, block in enumerate(self.layers):
            x_BSH = block(x_BSH, rotary, layer, attend)
        return self.head(x_BSH)

    def rotary(self, positions_BS: Tensor) -> Rotary:
        """Return cosine and sine, B S 1 D, in the weights' dtype; the angles themselves are fp32."""
        frequencies = rotary_frequencies(self.shape, positions_BS.device)
        angles_BSD = (positions_BS[..., None].float() * frequencies).repeat(1, 1, 2)[:, :, None]
        dtype = self.embed_tokens.weight.dtype
        return angles_BSD.cos().to(dtype), angles_BSD.sin().to(dtype)

    def head(self, x_BSH: Tensor) -> Tensor:
        """Return logits B S V of the residual stream; slice `x_BSH` first where only some positions matter."""
        weight_VH = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(self.norm(x_BSH), weight_VH)

    def load_hf_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a Hugging Face Llama, Qwen2 or Qwen3 causal model; raises on any name left over."""
        renamed = {name.removeprefix("model."): weight for name, weight in state.items()}
        if self.lm_head is None:
            renamed.pop("lm_head.weight", None)
        self.load_state_dict(renamed)

    @torch.no_grad()
    def initialize(self, seed: int, std: float = 0.02) -> Decoder:
        """Draw all matrices from N(0, std²) by `seed`, set biases to zero and norms to one; returns the model."""
        generator = torch.Generator(self.embed_tokens.weight.device).manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, std, generator=generator)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
        return self


@torch.no_grad()
def greedy(model: Decoder, ids_BS: Tensor, new_tokens: int) -> Tensor:
    """Return `ids_BS` with each row extended by its `new_tokens` most likely tokens, B S + new_tokens."""
    batch, prompt = ids_BS.shape
    cache = DenseCache(model.shape, batch, prompt + new_tokens, like=model.embed_tokens.weight)
    step_BS = ids_BS
    for _ in range(new_tokens):
        step_BS = model(step_BS, attend=cache)[:, -1:].argmax(-1)
        ids_BS = torch.cat((ids_BS, step_BS), dim=1)
    return ids_BS


def _check(shape: ModelShape) -> None:
    needed = {
        "mlp": "gated", "norm": "rmsnorm", "position": "rope", "head": "lm", "inputs": "tokens", "causal": True,
        "post_norm": False, "parallel_attention": False, "norms_per_layer": 2, "token_types": 0,
    }  # fmt: skip
    for name, value in needed.items():
        if getattr(shape, name) != value:
            raise ValueError(f"{shape.name}: {name} is {getattr(shape, name)!r}; Decoder needs {value!r}")
