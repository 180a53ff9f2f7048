"""What is trained: a transformer's shape, a sequence length, the kind of attention and the number format.

Mist's three families are `gpt`, `llama` and `falcon` in the sizes of the paper's workloads (§3 of the artifact's
settings); any other size is given by keyword. As in the artifact's accounting no model has a position table, a
final norm or biases, and embedding and head are untied.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from paperlab.transformer import ModelShape, element_bytes, preset

if TYPE_CHECKING:
    from torch import nn

    from paperlab.mist.blocks import ScoreBuffer
    from paperlab.mist.collectives import Group

Attention = Literal["flash", "math"]
SIZES = ("1.3b", "2.7b", "7b", "13b", "22b")
OPTIMIZER_BYTES_PER_PARAMETER = 12  # fp32 master weight and Adam's two moments


@dataclass(frozen=True)
class ModelSpec:
    """A model to train.

    `attention` is `flash` (no attention map in memory) or `math` (batched products around a causal softmax).
    `dtype` is the format of weights, gradients and activations; optimizer states are fp32 always.

    Raises:
        ValueError: a value out of range, or a shape that Mist's blocks cannot express (biases, learned positions).
    """

    shape: ModelShape
    seq_len: int
    attention: Attention = "flash"
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        _check_seq_len(self.seq_len)
        if self.attention not in ("flash", "math"):
            raise ValueError(f"attention is {self.attention!r}; choose flash or math")
        element_bytes(self.dtype)
        shape = self.shape
        if shape.qkv_bias or shape.out_bias or shape.mlp_bias or shape.qk_norm or shape.tied_embeddings:
            raise ValueError(f"{shape.name}: Mist's blocks have no biases, no query-key norm and untied embeddings")
        if shape.position == "learned" or shape.head != "lm" or not shape.causal or shape.inputs != "tokens":
            raise ValueError(f"{shape.name}: Mist trains causal language models without a position table")

    @property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return self.shape.layers

    @property
    def name(self) -> str:
        """The shape's name."""
        return self.shape.name

    @property
    def bytes_per_element(self) -> int:
        """Bytes of one weight, gradient or activation."""
        return element_bytes(self.dtype)

    def block(self, group: Group, buffer: ScoreBuffer | None = None) -> nn.Module:
        """Return one rank's part of a block; a subclass with another block is traced, tuned and run the same way."""
        from paperlab.mist.blocks import Block

        return Block(self, group, buffer)

    def check_tp(self, tp: int) -> None:
        """Raise ValueError naming the first size that tensor parallelism over `tp` devices cannot split evenly."""
        for field in ("heads", "kv_heads", "ffn", "vocab"):
            size = getattr(self.shape, field)
            if size % tp:
                raise ValueError(f"tp is {tp}; {self.name} has {size} {field}, which {tp} does not divide")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` inverts it."""
        return {**asdict(self), "shape": asdict(self.shape)}

    @classmethod
    def from_dict(cls, values: Any) -> ModelSpec:
        """Build a spec from `to_dict`'s values; ValueError names unknown or missing keys."""
        values = _exact_keys(values, {f.name for f in fields(cls)}, "model")
        shape = _exact_keys(values["shape"], {f.name for f in fields(ModelShape)}, "model.shape")
        if shape["rope_scaling"] is not None:
            raise ValueError("model.shape.rope_scaling is set; Mist's blocks use plain rotary positions")
        return cls(**{**values, "shape": ModelShape(**shape)})


def _exact_keys(values: Any, known: set[str], where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; write a mapping")
    if wrong := set(values) ^ known:
        raise ValueError(
            f"{where}: unknown or missing keys {', '.join(sorted(wrong))}; known: {', '.join(sorted(known))}"
        )
    return values


def gpt(
    size: str | None = None, *, seq_len: int, attention: Attention = "flash", dtype: str = "fp16", **sizes: Any
) -> ModelSpec:
    """Return a GPT: LayerNorm, GELU MLP of width 4·hidden, two norms per block.

    `size` is one of 1.3b, 2.7b, 7b, 13b, 22b; `sizes` overrides fields of its `ModelShape`, or gives them all
    where `size` is left out: `gpt(hidden=128, layers=4, heads=4, vocab=512, seq_len=128)`.
    """
    return _family("gpt", size, seq_len, attention, dtype, sizes)


def llama(
    size: str | None = None, *, seq_len: int, attention: Attention = "flash", dtype: str = "fp16", **sizes: Any
) -> ModelSpec:
    """Return a Llama: RMSNorm, gated SiLU MLP, rotary positions; arguments as for `gpt`, `ffn` and `kv_heads` too."""
    return _family("llama", size, seq_len, attention, dtype, sizes)


def falcon(
    size: str | None = None, *, seq_len: int, attention: Attention = "flash", dtype: str = "fp16", **sizes: Any
) -> ModelSpec:
    """Return a Falcon: attention and MLP side by side behind one LayerNorm; arguments as for `gpt`."""
    return _family("falcon", size, seq_len, attention, dtype, sizes)


def _check_seq_len(seq_len: object) -> None:
    if not isinstance(seq_len, int) or isinstance(seq_len, bool) or seq_len < 1:
        raise ValueError(f"seq_len is {seq_len!r}; write a positive whole number of tokens")


def _family(
    family: str, size: str | None, seq_len: int, attention: Attention, dtype: str, sizes: dict[str, Any]
) -> ModelSpec:
    if size is not None and size not in SIZES:
        raise ValueError(
            f"size is {size!r}; choose one of {', '.join(SIZES)}, or leave it out and give hidden, layers, heads"
        )
    _check_seq_len(seq_len)
    known = {f.name for f in fields(ModelShape)}
    if unknown := set(sizes) - known:
        raise ValueError(f"unknown sizes {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    base = preset(f"mist-{family}-{size or '1.3b'}")
    if size is None:
        sizes = _complete(family, sizes)
    return ModelSpec(replace(base, max_positions=seq_len, **sizes), seq_len, attention, dtype)


def _complete(family: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Fill in what follows from hidden, layers and heads, so that nothing of the preset's sizes stays behind."""
    if missing := {"hidden", "layers", "heads"} - set(sizes):
        raise ValueError(f"give {', '.join(sorted(missing))}, or a size out of {', '.join(SIZES)}")
    hidden, heads = sizes["hidden"], sizes["heads"]
    derived = {
        "name": f"{family}-h{hidden}-l{sizes['layers']}",
        "ffn": 4 * hidden,
        "kv_heads": heads,
        "head_dim": 0,
        "vocab": 50304,
    }
    return derived | sizes
