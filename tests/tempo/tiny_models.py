"""Small Hugging Face models of the five families, with a batch for each."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
    ViTConfig,
    ViTForImageClassification,
)

FAMILIES = ("bert", "roberta", "gpt2", "distilbert", "vit")
VOCABULARY = 61


def tiny_model(family: str, attention: str = "eager", layers: int = 2, **settings: Any) -> Any:
    """A training model: H = 32, A = 4, dropout 0.1, no cache, LayerNorm weights and biases perturbed."""
    shape = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 128}
    text = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": attention}
    if family in ("bert", "roberta"):
        config, model = {"bert": (BertConfig, BertForMaskedLM), "roberta": (RobertaConfig, RobertaForMaskedLM)}[family]
        built = model(config(**shape, **text | settings))
    elif family == "gpt2":
        built = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=layers, n_head=4, use_cache=False, **text | settings))
    elif family == "distilbert":
        sizes = {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 128}
        built = DistilBertForMaskedLM(DistilBertConfig(**sizes, **text | settings))
    else:
        image = {"image_size": 32, "patch_size": 8, "num_labels": 5, "attn_implementation": attention}
        dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        built = ViTForImageClassification(ViTConfig(**shape, **image | dropout | settings))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "norm" in name.lower() or ".ln_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return built.train()


def tiny_batch(family: str, batch: int = 2, seq: int = 16) -> dict[str, torch.Tensor]:
    """Inputs and labels; text comes with padding in its last row."""
    generator = torch.Generator().manual_seed(7)
    if family == "vit":
        labels = torch.arange(batch) % 5
        return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator), "labels": labels}
    ids = torch.randint(3, VOCABULARY, (batch, seq), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, seq - 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def bert_encoder(
    batch: int, seq: int, hidden: int, heads: int, layers: int = 1, *, device: str = "meta", **settings: Any
) -> tuple[Any, dict[str, torch.Tensor]]:
    """A BERT without heads, training, and ids for it, on `device`."""
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        vocab_size=VOCABULARY,
        max_position_embeddings=seq,
        attn_implementation="eager",
        **settings,
    )
    with torch.device(device):
        model = BertModel(config, add_pooling_layer=False).train()
        return model, {"input_ids": torch.randint(0, VOCABULARY, (batch, seq))}
