"""Closed forms for the bytes an encoder layer retains for backward (own derivation; `ledger` checks them).

Notation: B batch, S sequence, H hidden, A heads, e bytes per element, r = A*S/H. The feed-forward width is
4H, dropout is on, and a storage counts once however many operators keep it. A layer owns its input; a stack
with in-place LayerNorm keeps one hidden state more, the output of its last layer (`stack_bytes`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Era = Literal["paper", "modern"]
AttentionKind = Literal["eager", "sdpa"]
MaskFormat = Literal["byte", "bit"]
STATISTICS_BYTES = 4  # LayerNorm keeps its row statistics in fp32 whatever the element type


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one encoder layer: B, S, H, A and the bytes of one activation element.

    Raises `ValueError` where a size is not positive, or `hidden` is not a multiple of `heads`.
    """

    batch: int
    seq: int
    hidden: int
    heads: int
    element_bytes: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"LayerShape.{name} is {value!r}; it must be a positive integer")
        if self.hidden % self.heads:
            raise ValueError(f"LayerShape.hidden is {self.hidden}; it must be a multiple of heads={self.heads}")

    @property
    def bsh(self) -> int:
        """Elements of one hidden state, B*S*H."""
        return self.batch * self.seq * self.hidden

    @property
    def bas2(self) -> int:
        """Elements of one attention map, B*A*S*S."""
        return self.batch * self.heads * self.seq * self.seq

    @property
    def rows(self) -> int:
        """Rows a LayerNorm normalizes, B*S."""
        return self.batch * self.seq


@dataclass(frozen=True)
class Techniques:
    """Which retained tensors a layer does without; the default is the plain framework.

    `softmax_output` only matters in the paper's era; `python_gelu` is Hugging Face's `gelu_new` written in
    Python (three more 4H tensors, unless `gelu` replaces it); `checkpoint` keeps the layer's input only.
    """

    gelu: bool = False
    layernorm: bool = False
    dropout_recompute: bool = False
    softmax_output: bool = False
    side_mask: MaskFormat = "byte"
    attention: AttentionKind = "eager"
    python_gelu: bool = False
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.side_mask not in ("byte", "bit"):
            raise ValueError(f"Techniques.side_mask is {self.side_mask!r}; it must be 'byte' or 'bit'")
        if self.attention not in ("eager", "sdpa"):
            raise ValueError(f"Techniques.attention is {self.attention!r}; it must be 'eager' or 'sdpa'")


PLAIN = Techniques()
TEMPO = Techniques(gelu=True, layernorm=True, dropout_recompute=True, softmax_output=True)

SINGLE_TECHNIQUES = {
    "gelu": Techniques(gelu=True),
    "layernorm": Techniques(layernorm=True),
    "dropout_recompute": Techniques(dropout_recompute=True),
    "softmax_output": Techniques(softmax_output=True),  # saves nothing in modern torch
}

VARIANTS: dict[str, tuple[Era, Techniques]] = {
    "eager, paper era": ("paper", PLAIN),
    "eager, modern": ("modern", PLAIN),
    "+ GELU only": ("modern", Techniques(gelu=True)),
    "+ GELU only, bit mask": ("modern", Techniques(gelu=True, side_mask="bit")),
    "+ LayerNorm only": ("modern", Techniques(layernorm=True)),
    "+ dropout recompute only": ("modern", Techniques(dropout_recompute=True)),
    "+ softmax output only, paper era": ("paper", Techniques(softmax_output=True)),
    "Tempo": ("modern", TEMPO),
    "Tempo, bit mask": ("modern", replace(TEMPO, side_mask="bit")),
    "checkpoint": ("modern", Techniques(checkpoint=True)),
    "SDPA": ("modern", Techniques(attention="sdpa")),
    "SDPA + GELU + LayerNorm": ("modern", Techniques(attention="sdpa", gelu=True, layernorm=True)),
    "eager, Python gelu_new": ("modern", Techniques(python_gelu=True)),
}


def _check_era(era: str) -> None:
    if era not in ("paper", "modern"):
        raise ValueError(f"era is {era!r}; it must be 'paper' (torch <= 1.10) or 'modern'")


def side_mask_bytes(elements: int, mask: MaskFormat) -> int:
    """Bytes of the GELU side mask over `elements` values: one each, or ceil(n / 8) packed."""
    return elements if mask == "byte" else -(-elements // 8)


def _statistics_bytes(shape: LayerShape, techniques: Techniques) -> int:
    per_norm = STATISTICS_BYTES * shape.rows * (1 if techniques.layernorm else 2)
    return 2 * per_norm


def retained_terms(shape: LayerShape, techniques: Techniques = PLAIN, era: Era = "modern") -> dict[str, int]:
    """Bytes one layer retains, by the operator that holds them (own derivation).

    `linear` are the inputs of the matrix products (and Q, K, V); they are shared, so Tempo cannot free them.
    A fused kernel with dropout also keeps its random state, 16 bytes a layer, which is left out here.
    """
    _check_era(era)
    e, bsh, bas2 = shape.element_bytes, shape.bsh, shape.bas2
    if techniques.checkpoint:
        return {"layer input": e * bsh}
    gelu = 4 * e * bsh * (4 if techniques.python_gelu else 1)
    terms = {
        "linear": 10 * e * bsh,
        "gelu": side_mask_bytes(4 * bsh, techniques.side_mask) if techniques.gelu else gelu,
        "layernorm": _statistics_bytes(shape, techniques) + (0 if techniques.layernorm else 2 * e * bsh),
        "hidden dropout": 2 * bsh,
    }
    if techniques.attention == "sdpa":
        return terms | {"log-sum-exp": 4 * shape.batch * shape.heads * shape.seq}
    softmax_copies = 2 if era == "paper" and not techniques.softmax_output else 1
    dropped = 0 if techniques.dropout_recompute else e * bas2
    return terms | {"softmax": softmax_copies * e * bas2, "attention dropout": bas2 + dropped}


def retained_bytes(shape: LayerShape, techniques: Techniques = PLAIN, era: Era = "modern") -> int:
    """Bytes one encoder layer retains: 66 BSH + 9 BAS² (+ 16 BS) for modern fp32 eager attention."""
    return sum(retained_terms(shape, techniques, era).values())


def stack_bytes(shape: LayerShape, layers: int, techniques: Techniques = PLAIN, era: Era = "modern") -> int:
    """Bytes a stack of equal layers retains, with the last output, which in-place LayerNorm keeps itself."""
    if layers < 1:
        raise ValueError(f"layers is {layers}; it must be at least 1")
    boundary = shape.element_bytes * shape.bsh if techniques.layernorm and not techniques.checkpoint else 0
    return layers * retained_bytes(shape, techniques, era) + boundary


def leading_bytes(shape: LayerShape, techniques: Techniques = PLAIN, era: Era = "modern") -> int:
    """`retained_bytes` without LayerNorm's statistics: the terms in BSH and BAS² alone."""
    statistics = 0 if techniques.checkpoint else _statistics_bytes(shape, techniques)
    return retained_bytes(shape, techniques, era) - statistics


def activation_ratio(shape: LayerShape, era: Era, techniques: Techniques = TEMPO) -> float:
    """Baseline over Tempo in leading terms: 1.977 in the paper's era, 1.605 today, for r = 8 in fp32."""
    return leading_bytes(shape, era=era) / leading_bytes(shape, techniques, era)


def technique_shares(shape: LayerShape, era: Era) -> dict[str, float]:
    """Fraction of the baseline's leading bytes that each technique alone saves; the fractions add up."""
    baseline = leading_bytes(shape, era=era)
    return {name: 1 - leading_bytes(shape, technique, era) / baseline for name, technique in SINGLE_TECHNIQUES.items()}
