"""Hugging Face models of a `ModelShape`, for oracles; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from paperlab.transformer import ModelShape


def config(shape: ModelShape) -> Any:
    """Return the Hugging Face config of `shape`, chosen by the switches that tell the families apart."""
    if shape.inputs == "patches":
        return _vit(shape)
    if shape.parallel_attention:
        return _falcon(shape)
    if shape.position == "rope":
        return _llama(shape)
    return _bert(shape) if shape.post_norm else _gpt2(shape)


def meta_model(shape: ModelShape) -> Any:
    """Build the model with `shape.head` on the meta device, with attention written out as matrix products."""
    made = config(shape)
    made._attn_implementation = "eager"
    classes = {
        ("bert", "mlm"): hf.BertForMaskedLM, ("bert", "pooler"): hf.BertModel,
        ("roberta", "mlm"): hf.RobertaForMaskedLM, ("distilbert", "mlm"): hf.DistilBertForMaskedLM,
        ("vit", "pooler"): hf.ViTModel, ("gpt2", "lm"): hf.GPT2LMHeadModel, ("falcon", "lm"): hf.FalconForCausalLM,
        ("llama", "lm"): hf.LlamaForCausalLM, ("qwen2", "lm"): hf.Qwen2ForCausalLM,
        ("qwen3", "lm"): hf.Qwen3ForCausalLM,
    }  # fmt: skip
    with torch.device("meta"):
        return classes[made.model_type, shape.head](made).eval()


def _bert(shape: ModelShape) -> Any:
    if shape.token_types == 0:
        return hf.DistilBertConfig(
            n_layers=shape.layers, dim=shape.hidden, n_heads=shape.heads, hidden_dim=shape.ffn,
            vocab_size=shape.vocab, max_position_embeddings=shape.max_positions,
        )  # fmt: skip
    kind = hf.BertConfig if shape.token_types == 2 else hf.RobertaConfig
    return kind(
        num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads,
        intermediate_size=shape.ffn, vocab_size=shape.vocab, max_position_embeddings=shape.max_positions,
        type_vocab_size=shape.token_types, layer_norm_eps=shape.norm_eps,
    )  # fmt: skip


def _vit(shape: ModelShape) -> Any:
    return hf.ViTConfig(
        num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads,
        intermediate_size=shape.ffn, layer_norm_eps=shape.norm_eps, pooler_output_size=shape.hidden,
    )  # fmt: skip


def _gpt2(shape: ModelShape) -> Any:
    return hf.GPT2Config(
        n_layer=shape.layers, n_embd=shape.hidden, n_head=shape.heads, n_inner=shape.ffn, vocab_size=shape.vocab,
        n_positions=shape.max_positions, tie_word_embeddings=shape.tied_embeddings,
    )  # fmt: skip


def _falcon(shape: ModelShape) -> Any:
    return hf.FalconConfig(
        num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads,
        ffn_hidden_size=shape.ffn, vocab_size=shape.vocab, max_position_embeddings=shape.max_positions,
        multi_query=shape.kv_heads == 1, parallel_attn=True, bias=shape.out_bias,
        tie_word_embeddings=shape.tied_embeddings,
    )  # fmt: skip


def _llama(shape: ModelShape) -> Any:
    kind = hf.Qwen3Config if shape.qk_norm else hf.Qwen2Config if shape.qkv_bias else hf.LlamaConfig
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if (scaling := shape.rope_scaling) is not None:
        rope |= {
            "rope_type": "llama3", "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_max_positions,
            "low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
        }  # fmt: skip
    return kind(
        num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, intermediate_size=shape.ffn,
        vocab_size=shape.vocab, max_position_embeddings=shape.max_positions, rms_norm_eps=shape.norm_eps,
        rope_parameters=rope, tie_word_embeddings=shape.tied_embeddings,
    )  # fmt: skip
