"""What the engine is compared with: Hugging Face's `generate` on the same weights, one prompt at a time."""

from functools import cache
from itertools import product

import torch
import transformers as hf

from paperlab.seesaw.engine import ReshardingEngine
from paperlab.transformer import kv_bytes_per_token
from paperlab.transformer.model import Decoder
from tests.seesaw.small import TINY
from tests.transformer.hugging_face import config

BLOCK = 16
NEW_TOKENS = 12
RAGGED = (5, 33, 16, 47, 9, 21, 64, 1)
TOKEN_BYTES = kv_bytes_per_token(TINY, "fp32")
LAYOUTS = {2: ("P2", "T2"), 4: ("P4", "T2P2", "T4")}
PAIRS = {ranks: tuple(product(names, names)) for ranks, names in LAYOUTS.items()}


@cache
def decoder(shape=TINY):
    """Return a decoder whose weights are large enough that tokens follow from the text."""
    return Decoder(shape).initialize(0, std=0.1).requires_grad_(False).eval()


@cache
def prompts(lengths=RAGGED, vocab=TINY.vocab):
    generator = torch.Generator().manual_seed(1)
    return tuple(tuple(torch.randint(vocab, (n,), generator=generator).tolist()) for n in lengths)


@cache
def hugging_face(shape, lengths=RAGGED, new_tokens=NEW_TOKENS):
    """Return the greedy continuations in fp32."""
    made = config(shape)
    kinds = {"llama": hf.LlamaForCausalLM, "qwen2": hf.Qwen2ForCausalLM, "qwen3": hf.Qwen3ForCausalLM}
    model = kinds[made.model_type](made).eval()
    state = decoder(shape).state_dict()
    weights = {name if name.startswith("lm_head") else f"model.{name}": tensor for name, tensor in state.items()}
    if shape.tied_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    found = []
    for prompt in prompts(lengths, shape.vocab):
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        found.append(tuple(output[0, len(prompt) :].tolist()))
    return tuple(found)


def tiers(host_blocks, device_blocks, token_bytes=TOKEN_BYTES):
    """Return the options for tiers of so many blocks."""
    return {"host_kv_bytes": host_blocks * BLOCK * token_bytes, "device_kv_bytes": device_blocks * BLOCK * token_bytes}


def engine(pool, prefill, decode, shape=TINY, host_blocks=8, device_blocks=40, **options):
    options = tiers(host_blocks, device_blocks, kv_bytes_per_token(shape, "fp32")) | options
    return ReshardingEngine(decoder(shape), prefill, decode, pool=pool, **options)


def tokens(completions):
    return tuple(completion.tokens for completion in completions)


def blocks(length):
    return -(-length // BLOCK)
