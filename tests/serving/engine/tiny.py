"""Tiny random Hugging Face models, saved as folders, and what their own `generate` answers."""

from __future__ import annotations

from functools import cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCAB, LONGEST = 89, 256
_SIZES = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "vocab_size": VOCAB, "max_position_embeddings": LONGEST, "eos_token_id": None, "bos_token_id": None,
    "pad_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_SIZES, num_key_value_heads=2, rope_parameters=_LLAMA3)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_SIZES, num_key_value_heads=1, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**_SIZES, num_key_value_heads=4, head_dim=10, tie_word_embeddings=False)),
}
PROMPT_LENGTHS = (3, 17, 1, 40, 9)
OUTPUT_LENGTHS = (12, 5, 9, 12, 1)
SHORT = (5, 8, 6, 7, 3, 9)  # prompts that fit together, until they grow


@cache
def model(family: str):
    """Return a random float64 model whose biases and norms are random as well."""
    torch.manual_seed(1)
    make, config = FAMILIES[family]
    found = make(config).double().eval()
    with torch.no_grad():
        for weight in found.parameters():
            if weight.dim() == 1:
                weight += 0.3 * torch.randn_like(weight)
    return found


def prompts(lengths=PROMPT_LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, VOCAB, (length,), generator=generator).tolist() for length in lengths]


@cache
def expected(family: str, lengths=PROMPT_LENGTHS, output_lengths=OUTPUT_LENGTHS) -> list[list[int]]:
    """Return what Hugging Face generates greedily for `prompts(lengths)`, one at a time."""
    found = []
    for prompt, length in zip(prompts(lengths), output_lengths, strict=True):
        ids = model(family).generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False)
        found.append(ids[0, len(prompt) :].tolist())
    return found
