"""Retained bytes, counted on the meta device for encoders of any size and compared with the closed forms."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.memory.accounting import PLAIN, TEMPO, Era, LayerShape, Techniques, stack_bytes
from paperlab.tempo.memory.ledger import retained

BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
HEAD_SIZE = 64
# Which closed form belongs to which measured arm.
FORMS: dict[str, tuple[Era, Techniques]] = {
    "eager, paper era": ("paper", PLAIN),
    "eager, modern": ("modern", PLAIN),
    "GELU": ("modern", Techniques(gelu=True)),
    "LayerNorm": ("modern", Techniques(layernorm=True)),
    "attention": ("modern", Techniques(dropout_recompute=True)),
    "Tempo": ("modern", TEMPO),
    "Tempo, bit mask": ("modern", replace(TEMPO, side_mask="bit")),
    "checkpoint": ("modern", Techniques(checkpoint=True)),
}
AUTOCAST_ARMS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "LayerNorm, naive": {"gelu": False, "attention": False, "low_precision_output": False},
    "LayerNorm, autocast-aware": {"gelu": False, "attention": False},
    "Tempo, naive LayerNorm": {"low_precision_output": False},
    "Tempo, autocast-aware": {},
}


def bert_large(seq_len: int = 512, layers: int = 24) -> Any:
    """Return BERT-Large with its masked-language-model head and positions for `seq_len` tokens, on meta, training."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {**BERT_LARGE, "num_hidden_layers": layers, "max_position_embeddings": max(512, seq_len)}
    with torch.device("meta"):
        return BertForMaskedLM(BertConfig(**sizes, attn_implementation="eager")).train()


def encoder(shape: LayerShape, layers: int = 1, device: str = "meta") -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a BERT without heads with the sizes of `shape`, in training mode, and a batch of token ids for it."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        vocab_size=128,
        max_position_embeddings=shape.seq,
        attn_implementation="eager",
    )
    with torch.device(device):
        model = BertModel(config, add_pooling_layer=False).train()
        return model, {"input_ids": torch.randint(0, 128, (shape.batch, shape.seq))}


def encoder_table(arm: str, shape: LayerShape, layers: int = 1) -> pd.DataFrame:
    """Return what the encoder layers of an arm (see `baselines.ARMS`) keep, operator by operator, as counted.

    The element type follows `shape.element_bytes`: 4 is float32, 2 is bfloat16.
    """
    model, batch = encoder(shape, layers)
    model = model.to({2: torch.bfloat16, 4: torch.float32}[shape.element_bytes])
    table = retained(baselines.configure(model, arm), batch)
    return table[table.layer >= 0]


def encoder_bytes(arm: str, shape: LayerShape, layers: int = 1) -> int:
    """Return the sum of `encoder_table`."""
    return int(encoder_table(arm, shape, layers).bytes.sum())


def layer_bytes(arm: str, shape: LayerShape) -> int:
    """Return what one more layer keeps: a stack of two less a stack of one, so without the stack's last output."""
    return encoder_bytes(arm, shape, 2) - encoder_bytes(arm, shape, 1)


def ledger_check(count: int, seed: int) -> pd.DataFrame:
    """Compare counted with closed-form bytes for `count` random shapes, one to four layers, every arm of `FORMS`."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        heads = draw.choice([1, 2, 3, 4, 8, 16])
        shape = LayerShape(draw.randint(1, 8), draw.randint(1, 300), heads * draw.choice([4, 8, 20, 64]), heads)
        layers = draw.randint(1, 4)
        for arm, (era, techniques) in FORMS.items():
            sizes = (shape.batch, shape.seq, shape.hidden, heads, layers)
            rows.append((*sizes, arm, encoder_bytes(arm, shape, layers), stack_bytes(shape, layers, techniques, era)))
    table = pd.DataFrame(rows, columns=["B", "S", "H", "A", "layers", "arm", "counted_bytes", "closed_form_bytes"])
    return table.assign(difference=table.counted_bytes - table.closed_form_bytes)


def ratio_table(seq_lens: Iterable[int]) -> pd.DataFrame:
    """Return bytes and ratios of one BERT-Large layer by dtype and S, against both eras' baselines."""
    rows = []
    for element_bytes, dtype in ((4, "fp32"), (2, "16-bit")):
        for seq in seq_lens:
            shape = LayerShape(1, seq, 1024, 16, element_bytes)
            counted = [layer_bytes(arm, shape) for arm in FORMS]
            rows.append((dtype, seq, 16 * seq / 1024, *counted))
    table = pd.DataFrame(rows, columns=["dtype", "S", "r", *FORMS])
    both = 2 * table["eager, modern"] - table["GELU"] - table["LayerNorm"]
    return table.assign(
        ratio_paper_era=table["eager, paper era"] / table["Tempo"],
        ratio_modern=table["eager, modern"] / table["Tempo"],
        ratio_modern_bit_mask=table["eager, modern"] / table["Tempo, bit mask"],
        gelu_and_layernorm_percent_paper_era=100 * both / table["eager, paper era"],
        gelu_and_layernorm_percent_modern=100 * both / table["eager, modern"],
    )


def ablation(hidden: Iterable[int], seq_lens: Iterable[int]) -> pd.DataFrame:
    """Return the share of a layer's bytes that each technique saves: columns era, H, S, technique, percent."""
    rows = []
    for shape in (LayerShape(1, seq, h, h // HEAD_SIZE) for h in hidden for seq in seq_lens):
        era, modern = layer_bytes("eager, paper era", shape), layer_bytes("eager, modern", shape)
        saved = {arm: modern - layer_bytes(arm, shape) for arm in ("GELU", "LayerNorm", "attention")}
        for label, base in (("paper era", era), ("modern", modern)):
            shares = {**saved, "softmax output": base - modern}
            rows += [(label, shape.hidden, shape.seq, name, 100 * share / base) for name, share in shares.items()]
    return pd.DataFrame(rows, columns=["era", "H", "S", "technique", "percent"])


def autocast_table(shape: LayerShape) -> pd.DataFrame:
    """Return what one layer keeps in pure bf16 and under autocast, in units of BSH, and eager over it."""
    rows = []
    for precision, low in (("pure bf16", False), ("autocast to bf16", True)):
        kept = {arm: _kept_by_one_layer(options, shape, low) for arm, options in AUTOCAST_ARMS.items()}
        rows += [(precision, arm, v, v / shape.bsh, kept["eager"] / v) for arm, v in kept.items()]
    return pd.DataFrame(rows, columns=["precision", "arm", "bytes", "bytes_per_bsh", "ratio"])


def _kept_by_one_layer(options: dict[str, Any] | None, shape: LayerShape, autocast: bool) -> int:
    """Differences over batch and depth leave out the casts of weights and the stack's last output."""

    def kept(batch: int, layers: int) -> int:
        model, inputs = encoder(replace(shape, batch=batch * shape.batch), layers, "cpu")
        model = baselines.configure(model if autocast else model.bfloat16(), "eager, modern")
        if options is not None:
            patch.apply(model, **options)
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            table = retained(model, inputs)
        return int(table.bytes[table.layer >= 0].sum())

    return kept(2, 2) - kept(1, 2) - kept(2, 1) + kept(1, 1)
