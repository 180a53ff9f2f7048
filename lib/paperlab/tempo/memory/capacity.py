"""Largest batch under a memory cap: a model of the training step on the meta device, and published rows.

Bytes needed = training state (parameters, gradients, optimizer) + the peak of live bytes through forward and
backward + a reserve for the device context. The peak is tracked at the very batch sizes in question; what two
small batches keep only says where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.peak import step_peak

GIB = 2**30
# What the driver's context and the cuBLAS workspaces take from a card; an assumption of ours, always reported
CONTEXT_RESERVE_BYTES = int(0.8 * GIB)
# fp32: weight, gradient and two Adam moments; fp16: weight and gradient, with an fp32 copy and two fp32 moments
STATE_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class Card:
    """A GPU of the paper: its memory and what of it a training process cannot use (an assumption)."""

    name: str
    memory_bytes: int
    reserve_bytes: int = CONTEXT_RESERVE_BYTES


CARDS = {
    "RTX 2080 Ti": Card("RTX 2080 Ti", 11 * GIB),
    "V100": Card("V100", 16 * GIB),
    "A100": Card("A100", 40 * GIB, int(1.2 * GIB)),
}


@dataclass(frozen=True)
class Capacity:
    """Largest batch and where the bytes go; `step_bytes` is the peak at that batch (0 where none fits)."""

    batch: int
    arm: str
    seq_len: int
    memory_bytes: int
    reserve_bytes: int
    state_bytes: int
    step_bytes: int

    @property
    def free_bytes(self) -> int:
        """Bytes left over at the largest batch."""
        return self.memory_bytes - self.reserve_bytes - self.state_bytes - self.step_bytes


def largest(fits: Callable[[int], bool], guess: int = 1) -> int:
    """Largest positive integer that fits, 0 if none does, for a predicate that turns false once.

    Gallops from `guess` and bisects; when the guess is right, two probes settle it. The largest fitting value
    and its successor are always probed, each value once.
    """
    probe = cache(fits)
    step, low, high = 1, 0, max(guess, 1)
    while probe(high):
        low, high, step = high, high + step, 2 * step
    while low == 0 and high > 1:
        below = max(high - step, 1)
        low, high, step = (below, high, step) if probe(below) else (0, below, 2 * step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if probe(middle) else (low, middle)
    return low


def synthetic_batch(model: nn.Module, batch: int, seq_len: int, device: str = "meta") -> dict[str, torch.Tensor]:
    """Random inputs for a Hugging Face model: token ids (with labels where it is a language model) or pixels.

    Images have the size the model is configured for; `seq_len` must then be their number of tokens.
    """
    config: Any = model.config
    if getattr(model, "main_input_name", "input_ids") == "pixel_values":
        size = (batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size, device=device)}
    longest = getattr(config, "max_position_embeddings", seq_len)
    if not 1 <= seq_len <= longest:
        raise ValueError(f"seq_len is {seq_len}; the model has positions for 1 to {longest} tokens")
    ids = torch.randint(0, config.vocab_size, (batch, seq_len), device=device)
    language_model = type(model).__name__.endswith(("ForMaskedLM", "LMHeadModel", "ForCausalLM"))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs | {"labels": ids} if language_model else inputs


def _meta_model(model: Any, arm: str | None, dtype: torch.dtype | None) -> Any:
    """A training copy of a model, or of the language model a configuration describes, on the meta device."""
    if isinstance(model, nn.Module):
        twin = meta_copy(model)
    else:
        from transformers import AutoModelForPreTraining

        with torch.device("meta"):
            twin = AutoModelForPreTraining.from_config(model, attn_implementation="eager")
    twin = twin.to(dtype).train()
    if arm is None:
        return baselines.as_on_gpu(twin)
    patch.revert(twin)
    return baselines.configure(twin, arm)


def _with_gradients(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    return model


def step_bytes(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """Peak of live bytes through forward and backward, gradients counted with the training state."""
    return step_peak(_with_gradients(model), batch).peak_bytes


class _Step:
    """Peaks of a training step by batch, each traced once, and a guess at the batch that fills a room."""

    def __init__(self, model: nn.Module, seq_len: int) -> None:
        self._model, self._seq_len = model, seq_len
        self._peaks: dict[int, int] = {}

    def needed(self, batch: int) -> int:
        """Return the peak in bytes at this batch."""
        if batch not in self._peaks:
            self._peaks[batch] = step_bytes(self._model, synthetic_batch(self._model, batch, self._seq_len))
        return self._peaks[batch]

    def fits(self, room_bytes: int, batch: int) -> bool:
        """Return whether the peak at this batch is within the room."""
        return self.needed(batch) <= room_bytes

    def guess(self, room_bytes: int) -> int:
        """Return the batch that fills the room by the line through the two largest batches known so far."""
        if not self._peaks:
            self.needed(max(1, room_bytes // self.needed(1)))
        if len(self._peaks) == 1:
            return 1
        first, second = sorted(self._peaks)[-2:]
        slope = (self._peaks[second] - self._peaks[first]) / (second - first)
        return max(1, int(second + (room_bytes - self._peaks[second]) / slope))


def capacity(model: Any, memory_bytes: float, seq_len: int, arm: str | None = None, **options: Any) -> Capacity:
    """Largest training batch of `model` on a GPU with `memory_bytes`, with its accounting.

    `options` are those of `capacities`, and `reserve_bytes`.
    """
    reserve_bytes = options.pop("reserve_bytes", CONTEXT_RESERVE_BYTES)
    return capacities(model, [(memory_bytes, reserve_bytes)], seq_len, arm, **options)[0]


def capacities(
    model: Any,
    gpus: Iterable[tuple[float, int]],
    seq_len: int,
    arm: str | None = None,
    *,
    state_bytes_per_parameter: int = STATE_BYTES_PER_PARAMETER,
    dtype: torch.dtype | None = None,
) -> list[Capacity]:
    """Largest training batch of `model` on each of `gpus`, (memory, reserve) in bytes, with its accounting.

    `model` is a Hugging Face model, as it is configured (arm None) or as one of `baselines.ARMS`, or a
    configuration; it is not changed and its weights are not touched. Gradients persist between steps, as in the
    paper's software. Raises `ValueError` where a memory is below what the model takes without any batch.
    """
    twin = _meta_model(model, arm, dtype)
    state = sum(p.numel() for p in twin.parameters() if p.requires_grad) * state_bytes_per_parameter
    state += sum(p.nbytes for p in twin.parameters() if not p.requires_grad) + sum(b.nbytes for b in twin.buffers())
    step, found = _Step(twin, seq_len), []
    for memory_bytes, reserve_bytes in gpus:
        room = int(memory_bytes) - reserve_bytes - state
        if room <= 0:
            raise ValueError(
                f"memory_bytes is {memory_bytes:.4g}; the model's training state and the reserve alone take "
                f"{state + reserve_bytes:.4g}"
            )
        batch = largest(partial(step.fits, room), step.guess(room))
        peak = step.needed(batch) if batch else 0
        found.append(Capacity(batch, arm or "as configured", seq_len, int(memory_bytes), reserve_bytes, state, peak))
    return found


def max_batch(model: Any, memory_bytes: float, seq_len: int, arm: str | None = None, **options: Any) -> int:
    """Largest training batch of `model` under `memory_bytes`; see `capacity` for the options and the errors."""
    return capacity(model, memory_bytes, seq_len, arm, **options).batch


# README of the official repository (torch 1.12, hence the modern baseline): BERT-Large on SQuAD, S = 384, four
# GPUs, batch per GPU and sequences per second
README_ROWS = pd.DataFrame(
    [
        ("R-01", "RTX 2080 Ti", "float32", "eager, modern", 4, 12.29),
        ("R-02", "RTX 2080 Ti", "float32", "Tempo", 6, 16.23),
        ("R-03", "RTX 2080 Ti", "float16", "eager, modern", 8, 49.36),
        ("R-04", "RTX 2080 Ti", "float16", "Tempo", 11, 61.28),
        ("R-05", "V100", "float32", "eager, modern", 8, 45.38),
        ("R-06", "V100", "float32", "Tempo", 13, 50.75),
        ("R-07", "V100", "float16", "eager, modern", 16, 213.81),
        ("R-08", "V100", "float16", "Tempo", 22, 203.36),
    ],
    columns=["claim_id", "card", "dtype", "arm", "published_batch", "published_sequences_per_s"],
)


def compare_with_readme() -> pd.DataFrame:
    """`README_ROWS` with `model_batch`, and the ratio to the eager batch, published and modeled.

    The ratios are what to compare: the published runs used another optimizer, NVIDIA's model and apex.
    """
    from transformers import BertConfig, BertForQuestionAnswering

    shape: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    with torch.device("meta"):
        bert = BertForQuestionAnswering(BertConfig(**shape, intermediate_size=4096))

    cards = list(README_ROWS.card.unique())
    gpus = [(CARDS[card].memory_bytes, CARDS[card].reserve_bytes) for card in cards]

    @cache  # one model serves both cards
    def modeled(dtype: str, arm: str) -> list[int]:
        return [found.batch for found in capacities(bert, gpus, 384, arm, dtype=getattr(torch, dtype))]

    batches = [modeled(row.dtype, row.arm)[cards.index(row.card)] for row in README_ROWS.itertuples()]
    table = README_ROWS.assign(model_batch=batches)
    eager = table.groupby(["card", "dtype"]).transform("first")
    return table.assign(
        published_ratio=table.published_batch / eager.published_batch,
        model_ratio=table.model_batch / eager.model_batch,
    )
