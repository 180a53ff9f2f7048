"""Reads a `ModelShape` from a Hugging Face config; only attributes are read, so torch is not needed."""

from __future__ import annotations

from typing import Any

from paperlab.transformer.shapes import Head, ModelShape, RopeScaling


def from_hf_config(config: Any, head: Head | None = None) -> ModelShape:
    """Return the shape that a Hugging Face config describes.

    Model types: bert, roberta, distilbert, gpt2, vit, llama, qwen2, qwen3, falcon. `head` defaults to the
    family's pre-training head.

    Raises:
        ValueError: another model type, or a feature of the config that a `ModelShape` cannot express.
    """
    readers = {
        "bert": _bert, "roberta": _bert, "distilbert": _distilbert, "gpt2": _gpt2, "vit": _vit,
        "llama": _llama, "qwen2": _llama, "qwen3": _llama, "falcon": _falcon,
    }  # fmt: skip
    if config.model_type not in readers:
        raise ValueError(f"model_type is {config.model_type!r}; supported: {', '.join(readers)}")
    values = readers[config.model_type](config)
    name = getattr(config, "name_or_path", "") or config.model_type
    return ModelShape(name=name, **(values if head is None else values | {"head": head}))


def _bert(config: Any) -> dict[str, Any]:
    return _encoder(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        ffn=config.intermediate_size,
        vocab=config.vocab_size,
        max_positions=config.max_position_embeddings,
        norm_eps=config.layer_norm_eps,
        token_types=config.type_vocab_size,
        tied_embeddings=config.tie_word_embeddings,
    )


def _distilbert(config: Any) -> dict[str, Any]:
    return _encoder(
        layers=config.n_layers,
        hidden=config.dim,
        heads=config.n_heads,
        ffn=config.hidden_dim,
        vocab=config.vocab_size,
        max_positions=config.max_position_embeddings,
        norm_eps=1e-12,
        tied_embeddings=config.tie_word_embeddings,
    )


def _vit(config: Any) -> dict[str, Any]:
    return _encoder(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        ffn=config.intermediate_size,
        vocab=config.num_channels * config.patch_size**2,
        max_positions=(config.image_size // config.patch_size) ** 2 + 1,
        norm_eps=config.layer_norm_eps,
        post_norm=False,
        inputs="patches",
        head="pooler",
        tied_embeddings=False,
        qkv_bias=config.qkv_bias,
    )


def _encoder(**sizes: Any) -> dict[str, Any]:
    """Return BERT's switches with `sizes` on top."""
    switches = {"post_norm": True, "causal": False, "head": "mlm", "tied_embeddings": True}
    biases = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
    return switches | biases | sizes


def _gpt2(config: Any) -> dict[str, Any]:
    return {
        "layers": config.n_layer,
        "hidden": config.n_embd,
        "heads": config.n_head,
        "ffn": config.n_inner or 4 * config.n_embd,
        "vocab": config.vocab_size,
        "max_positions": config.n_positions,
        "norm_eps": config.layer_norm_epsilon,
        "tied_embeddings": config.tie_word_embeddings,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
    }


def _llama(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    if rope["rope_type"] not in ("default", "llama3"):
        raise ValueError(f"rope_type is {rope['rope_type']!r}; supported: default, llama3")
    if getattr(config, "use_sliding_window", False):
        raise ValueError("use_sliding_window is set; only full attention is supported")
    qwen2 = config.model_type == "qwen2"
    bias = bool(getattr(config, "attention_bias", False))
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "ffn": config.intermediate_size,
        "vocab": config.vocab_size,
        "max_positions": config.max_position_embeddings,
        "mlp": "gated",
        "norm": "rmsnorm",
        "norm_eps": config.rms_norm_eps,
        "position": "rope",
        "rope_theta": float(rope["rope_theta"]),
        "rope_scaling": _rope_scaling(rope),
        "tied_embeddings": config.tie_word_embeddings,
        "qkv_bias": qwen2 or bias,
        "out_bias": bias,
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
        "qk_norm": config.model_type == "qwen3",
    }


def _rope_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    if rope["rope_type"] == "default":
        return None
    return RopeScaling(
        float(rope["factor"]),
        int(rope["original_max_position_embeddings"]),
        float(rope["low_freq_factor"]),
        float(rope["high_freq_factor"]),
    )


def _falcon(config: Any) -> dict[str, Any]:
    if config.alibi or config.new_decoder_architecture:
        raise ValueError("alibi or new_decoder_architecture is set; only Falcon-7B's block is supported")
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": 1 if config.multi_query else config.num_attention_heads,
        "ffn": config.ffn_hidden_size,
        "vocab": config.vocab_size,
        "max_positions": config.max_position_embeddings,
        "norm_eps": config.layer_norm_epsilon,
        "norms_per_layer": 1 if config.parallel_attn else 2,
        "parallel_attention": config.parallel_attn,
        "position": "rope",
        "tied_embeddings": config.tie_word_embeddings,
        "qkv_bias": config.bias,
        "out_bias": config.bias,
        "mlp_bias": config.bias,
    }
