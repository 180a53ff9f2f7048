"""Model shapes: the numbers that fix a transformer's parameters, FLOPs and bytes. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mlp = Literal["plain", "gated"]
Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["rope", "learned", "none"]
Head = Literal["lm", "mlm", "pooler", "none"]
_CHOICES = {
    "mlp": ("plain", "gated"),
    "norm": ("layernorm", "rmsnorm"),
    "position": ("rope", "learned", "none"),
    "head": ("lm", "mlm", "pooler", "none"),
    "inputs": ("tokens", "patches"),
}


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3's stretching of slow rotary frequencies, as `rope_type: llama3` in Hugging Face configs."""

    factor: float
    original_max_positions: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and self.original_max_positions >= 1):
            raise ValueError(f"factor and original_max_positions must be at least 1, not {self}")
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(f"low_freq_factor must be below high_freq_factor and positive, not {self}")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes and switches of one transformer.

    A layer is attention (`heads` query heads and `kv_heads` key/value heads of `head_dim`) and an MLP of width
    `ffn` (`plain`: two matrices, `gated`: three), with `norms_per_layer` norms before (`post_norm=False`) or
    after each part. Models with `post_norm` normalize the embedding's output, the others the last layer's.

    `vocab` counts token ids, or the values of one patch where `inputs` is `"patches"`. `head` is what follows the
    last layer: `lm` (vocabulary projection), `mlm` (BERT's transform, norm and tied projection with bias),
    `pooler` (BERT's and ViT's first-token projection) or `none`.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    max_positions: int
    kv_heads: int = 0  # 0: as many as heads; resolved once, so `replace` keeps the number
    head_dim: int = 0  # 0: hidden / heads; likewise
    mlp: Mlp = "plain"
    norm: Norm = "layernorm"
    norm_eps: float = 1e-5
    norms_per_layer: int = 2
    post_norm: bool = False
    causal: bool = True
    position: Position = "learned"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    head: Head = "lm"
    tied_embeddings: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    parallel_attention: bool = False
    token_types: int = 0
    inputs: Literal["tokens", "patches"] = "tokens"

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        if not self.head_dim and self.heads:
            if self.hidden % self.heads:
                raise ValueError(f"hidden is {self.hidden}; give head_dim or a multiple of {self.heads} heads")
            object.__setattr__(self, "head_dim", self.hidden // self.heads)
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_positions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a positive whole number")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads is {self.heads}; it must be a multiple of kv_heads, {self.kv_heads}")
        if self.rope_scaling is not None and self.position != "rope":
            raise ValueError(f"rope_scaling is set; position must be 'rope' then, not {self.position!r}")

    @property
    def q_width(self) -> int:
        """Width of all query heads together, heads · head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads (or value heads) together, kv_heads · head_dim."""
        return self.kv_heads * self.head_dim
