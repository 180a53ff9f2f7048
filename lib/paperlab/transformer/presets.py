"""Named model shapes: published models by their configs, and the training families of the Mist paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paperlab.transformer.shapes import ModelShape, RopeScaling

_BIASES = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
_BERT = _BIASES | {
    "vocab": 30522, "max_positions": 512, "token_types": 2, "norm_eps": 1e-12, "post_norm": True, "causal": False,
    "head": "mlm", "tied_embeddings": True,
}  # fmt: skip
_ROBERTA = _BERT | {"vocab": 50265, "max_positions": 514, "token_types": 1, "norm_eps": 1e-5}
_VIT = _BIASES | {
    "vocab": 3 * 16 * 16, "max_positions": 14 * 14 + 1, "norm_eps": 1e-12, "causal": False, "head": "pooler",
    "inputs": "patches",
}  # fmt: skip
_GPT2 = _BIASES | {"vocab": 50257, "max_positions": 1024, "tied_embeddings": True}

_LLAMA = {"mlp": "gated", "norm": "rmsnorm", "position": "rope"}
_LLAMA2 = _LLAMA | {"vocab": 32000, "max_positions": 4096}
_CODELLAMA = _LLAMA2 | {"max_positions": 16384, "rope_theta": 1e6}
_LLAMA3 = _LLAMA | {"vocab": 128256, "max_positions": 8192, "rope_theta": 5e5}
_LLAMA31 = _LLAMA3 | {"max_positions": 131072, "rope_scaling": RopeScaling(8.0, original_max_positions=8192)}
_LLAMA32 = _LLAMA31 | {
    "rope_scaling": RopeScaling(32.0, original_max_positions=8192),
    "tied_embeddings": True,
}
_QWEN25 = _LLAMA | {
    "vocab": 152064,
    "max_positions": 32768,
    "rope_theta": 1e6,
    "norm_eps": 1e-6,
    "qkv_bias": True,
}
_QWEN25_SMALL = _QWEN25 | {"vocab": 151936, "tied_embeddings": True}
_QWEN3 = _QWEN25_SMALL | {"max_positions": 40960, "qkv_bias": False, "qk_norm": True, "head_dim": 128}

# Mist's training families: size -> (layers, hidden, heads, ffn of the gated MLP).
_MIST_SIZES = {
    "1.3b": (24, 2048, 16, 5632),
    "2.7b": (32, 2560, 32, 6912),
    "7b": (32, 4096, 32, 11008),
    "13b": (40, 5120, 40, 13824),
    "22b": (48, 6144, 64, 16384),
}


def _encoder(name: str, layers: int, hidden: int, switches: dict[str, Any]) -> ModelShape:
    """Return a model of the BERT and GPT-2 proportions: heads of 64, an MLP of four times the width."""
    return _shape(name, layers, hidden, hidden // 64, 0, 4 * hidden, switches)


def _shape(
    name: str, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, switches: dict[str, Any]
) -> ModelShape:
    return ModelShape(
        name=name, layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, ffn=ffn, **switches
    )  # fmt: skip


def _mist_families(size: str) -> tuple[ModelShape, ...]:
    """Return GPT, Llama and Falcon of one size: 50,304 tokens, untied, no biases.

    As in Mist's accounting GPT has no position table. Falcon is the parallel block behind a single norm.
    """
    layers, hidden, heads, gated_ffn = _MIST_SIZES[size]
    common = {"vocab": 50304, "max_positions": 4096, "position": "none"}
    gpt = _shape(f"mist-gpt-{size}", layers, hidden, heads, 0, 4 * hidden, common)
    llama = _shape(f"mist-llama-{size}", layers, hidden, heads, 0, gated_ffn, common | _LLAMA)
    falcon = {"name": f"mist-falcon-{size}", "position": "rope", "parallel_attention": True, "norms_per_layer": 1}
    return gpt, llama, replace(gpt, **falcon)  # type: ignore[arg-type]


_ALL = (
    _encoder("bert-base", 12, 768, _BERT),
    _encoder("bert-large", 24, 1024, _BERT),
    _encoder("roberta-base", 12, 768, _ROBERTA),
    _encoder("roberta-large", 24, 1024, _ROBERTA),
    _encoder("distilbert", 6, 768, _BERT | {"token_types": 0}),
    _encoder("vit-base", 12, 768, _VIT),
    _encoder("gpt2", 12, 768, _GPT2),
    _encoder("gpt2-medium", 24, 1024, _GPT2),
    _encoder("gpt2-large", 36, 1280, _GPT2),
    _encoder("gpt2-xl", 48, 1600, _GPT2),
    _shape("llama2-7b", 32, 4096, 32, 32, 11008, _LLAMA2),
    _shape("llama2-13b", 40, 5120, 40, 40, 13824, _LLAMA2),
    _shape("llama2-70b", 80, 8192, 64, 8, 28672, _LLAMA2),
    _shape("codellama-34b", 48, 8192, 64, 8, 22016, _CODELLAMA),
    _shape("llama3-15b", 64, 4096, 32, 8, 14336, _LLAMA3),  # a community model: Llama-3-8B's layers stacked
    _shape("llama3.1-8b", 32, 4096, 32, 8, 14336, _LLAMA31),
    _shape("llama3.1-70b", 80, 8192, 64, 8, 28672, _LLAMA31),
    _shape("llama3.2-1b", 16, 2048, 32, 8, 8192, _LLAMA32),
    _shape("llama3.2-3b", 28, 3072, 24, 8, 8192, _LLAMA32),
    _shape("qwen2.5-1.5b", 28, 1536, 12, 2, 8960, _QWEN25_SMALL),
    _shape("qwen2.5-3b", 36, 2048, 16, 2, 11008, _QWEN25_SMALL),
    _shape("qwen2.5-7b", 28, 3584, 28, 4, 18944, _QWEN25),
    _shape("qwen2.5-14b", 48, 5120, 40, 8, 13824, _QWEN25),
    _shape("qwen3-4b", 36, 2560, 32, 8, 9728, _QWEN3),
    *(shape for size in _MIST_SIZES for shape in _mist_families(size)),
)

PRESETS: dict[str, ModelShape] = {shape.name: shape for shape in _ALL}


def preset(name: str) -> ModelShape:
    """Return the shape called `name`, hyphens and case aside (`Llama-3.1-8B`); ValueError lists the known names."""
    plain = {_plain(known): shape for known, shape in PRESETS.items()}
    if _plain(name) not in plain:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(PRESETS)}")
    return plain[_plain(name)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "")
