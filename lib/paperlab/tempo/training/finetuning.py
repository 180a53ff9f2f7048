"""Fine-tuning a tiny pre-trained BERT with and without Tempo: equal scores on a task made here.

The paper fine-tunes published weights on public data, neither of which is available offline. What can be shown is
that a model pre-trained and fine-tuned with Tempo scores as one trained without it, seed by seed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paperlab.tempo.training.pretraining import ARMS, Recipe, pretrained


@dataclass(frozen=True)
class Task:
    """Tell by which stride a progression advances when `noise` of its tokens are replaced at random."""

    noise: float = 0.2
    steps: int = 200
    learning_rate: float = 1e-3
    test_sequences: int = 1024


def noisy_progressions(recipe: Recipe, task: Task, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return input_ids (count, S) and labels (count,): the index of the stride."""
    tokens = recipe.vocabulary - 1
    start_B1 = torch.randint(tokens, (count, 1), generator=generator)
    label_B1 = torch.randint(recipe.strides, (count, 1), generator=generator)
    clean_BS = (start_B1 + (label_B1 + 1) * torch.arange(recipe.seq_len)) % tokens
    replaced_BS = torch.rand(clean_BS.shape, generator=generator) < task.noise
    noise_BS = torch.randint(tokens, clean_BS.shape, generator=generator)
    return {"input_ids": torch.where(replaced_BS, noise_BS, clean_BS), "labels": label_B1[:, 0]}


def classifier(source: Any, recipe: Recipe, seed: int) -> Any:
    """Return a sequence classifier with the encoder's weights of `source` and a fresh head."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(seed)
    config = copy.deepcopy(source.config)
    config.num_labels = recipe.strides
    model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    model.bert.load_state_dict(source.bert.state_dict(), strict=False)  # the pooler is new
    return model.train()


def fine_tune(recipe: Recipe, task: Task, arm: str, seed: int) -> float:
    """Pre-train and fine-tune one arm and return its accuracy on sequences it has not seen."""
    source, _ = pretrained(recipe, arm, seed)
    model = classifier(source, recipe, seed)
    ARMS[arm](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(task.steps):
        model(**noisy_progressions(recipe, task, recipe.batch, generator)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    test = noisy_progressions(recipe, task, task.test_sequences, torch.Generator().manual_seed(10_000 + seed))
    with torch.no_grad():
        guesses = model.eval()(input_ids=test["input_ids"]).logits.argmax(-1)
    return (guesses == test["labels"]).double().mean().item()


def accuracy_table(recipe: Recipe, task: Task, arms: tuple[str, ...], seeds: tuple[int, ...]) -> pd.DataFrame:
    """Return the test accuracy of each arm and seed, with half the width of its 95 % interval (binomial)."""
    rows = [(arm, seed, fine_tune(recipe, task, arm, seed)) for seed in seeds for arm in arms]
    table = pd.DataFrame(rows, columns=["arm", "seed", "accuracy"])
    half_width = 1.96 * (table.accuracy * (1 - table.accuracy) / task.test_sequences) ** 0.5
    return table.assign(half_width_95=half_width, chance=1 / recipe.strides)
