"""Masked-language-model pre-training of a tiny BERT that really learns, to compare losses step by step.

A comparison of losses is vacuous on a model that does not learn: there, any gradient "matches". The task is made so
that it can be learned in minutes: each sequence is an arithmetic progression modulo the vocabulary, a masked token
follows from its neighbors, and a model that ignores them stays at the unigram entropy, log(vocabulary). Some LayerNorm
channels start with gamma = 0, as in a pruned or zero-initialized network, so that mistakes there show as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from paperlab.tempo.dropin import patch
from paperlab.tempo.dropin.baselines import use_native_dropout
from paperlab.tempo.training.controls import CONTROLS

_IGNORED = -100  # the label that Hugging Face's loss leaves out


@dataclass(frozen=True)
class Recipe:
    """Model, task and optimizer; the defaults fall well below 70 % of the unigram entropy in 400 steps."""

    vocabulary: int = 17  # the last id is the mask token
    seq_len: int = 16
    strides: int = 3  # progressions step by 1 to this
    masked_fraction: float = 0.15
    hidden: int = 64
    heads: int = 4
    layers: int = 2
    initializer_range: float = 0.1  # Hugging Face's 0.02 does not learn at this size
    zero_gamma_every: int = 16  # every n-th LayerNorm channel of the layers starts with gamma = 0
    learning_rate: float = 1e-3
    batch: int = 32
    steps: int = 400

    def __post_init__(self) -> None:
        if self.vocabulary < 4 or self.steps < 1:
            raise ValueError(
                f"Recipe: vocabulary {self.vocabulary} must be at least 4 and steps {self.steps} at least 1"
            )

    @property
    def unigram_entropy(self) -> float:
        """Loss in nats of a model that knows nothing but which tokens exist."""
        return math.log(self.vocabulary - 1)


def batches(recipe: Recipe, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield `recipe.steps` batches: input_ids and labels, (B, S) int64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    tokens, shape = recipe.vocabulary - 1, (recipe.batch, recipe.seq_len)
    for _ in range(recipe.steps):
        start_B1 = torch.randint(tokens, (recipe.batch, 1), generator=generator)
        stride_B1 = torch.randint(1, recipe.strides + 1, (recipe.batch, 1), generator=generator)
        clean_BS = (start_B1 + stride_B1 * torch.arange(recipe.seq_len)) % tokens
        masked_BS = torch.rand(shape, generator=generator) < recipe.masked_fraction
        yield {
            "input_ids": torch.where(masked_BS, recipe.vocabulary - 1, clean_BS),
            "labels": torch.where(masked_BS, clean_BS, _IGNORED),
        }


def build(recipe: Recipe, seed: int) -> Any:
    """Return a fresh `BertForMaskedLM` in training mode with eager attention and dropout 0.1."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.hidden,
        max_position_embeddings=recipe.seq_len,
        initializer_range=recipe.initializer_range,
        attn_implementation="eager",
    )
    model = BertForMaskedLM(config).train()
    for module in model.bert.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.zeros_(module.weight.data[:: recipe.zero_gamma_every])
    return model


def _tempo(**options: Any) -> Callable[[Any], None]:
    def configure(model: Any) -> None:
        use_native_dropout(model)
        patch.apply(model, **options)

    return configure


ARMS: dict[str, Callable[[Any], None]] = {
    "baseline": use_native_dropout,
    "Tempo": _tempo(),
    "Tempo, bit mask": _tempo(packed=True),
    "Tempo, polynomials in y": _tempo(evaluator="paper"),
    "control: other dropout seed": use_native_dropout,
    **CONTROLS,
}


def pretrain(recipe: Recipe, arm: str, seed: int) -> tuple[Any, list[float]]:
    """Train one arm; return the model, unpatched, and the raw loss of each step.

    Arms of one seed share initial weights, data and dropout patterns.

    Raises:
        ValueError: `arm` is not one of `ARMS`.
    """
    if arm not in ARMS:
        raise ValueError(f"arm is {arm!r}; it must be one of {', '.join(ARMS)}")
    model = build(recipe, seed)
    ARMS[arm](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    torch.manual_seed(seed + 1 if arm == "control: other dropout seed" else seed)
    losses = []
    for batch in batches(recipe, seed):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    patch.revert(model)
    return model, losses


@cache  # the comparison of losses and fine-tuning ask for the same runs, of which each takes many seconds
def pretrained(recipe: Recipe, arm: str, seed: int) -> tuple[Any, tuple[float, ...]]:
    """Return what `pretrain` does, computed once in a process; callers must leave the model as it is."""
    model, losses = pretrain(recipe, arm, seed)
    return model, tuple(losses)


def loss_table(recipe: Recipe, arms: tuple[str, ...], seeds: tuple[int, ...]) -> pd.DataFrame:
    """Return the raw losses: a row per arm, seed and step, with `gap`, the distance from that seed's baseline."""
    rows = []
    for seed in seeds:
        _, baseline = pretrained(recipe, "baseline", seed)
        for arm in arms:
            _, losses = pretrained(recipe, arm, seed)
            rows += [(arm, seed, step, *pair) for step, pair in enumerate(zip(losses, baseline, strict=True), 1)]
    table = pd.DataFrame(rows, columns=["arm", "seed", "step", "loss", "baseline_loss"])
    return table.assign(gap=(table.loss - table.baseline_loss).abs()).drop(columns="baseline_loss")


def agreement_table(losses: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Summarize `loss_table` per arm and seed.

    Columns: first step whose loss differs by more than 1e-6 and 1e-4 (empty: never), the largest gap up to step 100
    and overall, the final loss (mean of the last 20 steps), and that loss over the unigram entropy.
    """
    rows = []
    for (arm, seed), group in losses.groupby(["arm", "seed"], sort=False):
        final = group.loss.tail(20).mean()
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "first_step_over_1e-6": _first_over(group, 1e-6),
                "first_step_over_1e-4": _first_over(group, 1e-4),
                "largest_gap_100_steps": group.gap[group.step <= 100].max(),
                "largest_gap": group.gap.max(),
                "final_loss": final,
                "of_unigram_entropy": final / recipe.unigram_entropy,
            }
        )
    return pd.DataFrame(rows).astype({"first_step_over_1e-6": "Int64", "first_step_over_1e-4": "Int64"})


def _first_over(group: pd.DataFrame, limit: float) -> int | None:
    # A NaN gap is a gap: an arm that diverged must not look like one that agrees.
    over = group.step[~(group.gap <= limit)]
    return None if over.empty else int(over.iloc[0])
