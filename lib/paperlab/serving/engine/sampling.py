"""How the next token is chosen: greedily, or by temperature and nucleus (top-p) with a request's own generator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """One request's wishes.

    `temperature` 0 takes the most likely token. `top_p` below 1 draws among the fewest tokens whose probabilities add
    up to it. `seed` None: derived from the engine's seed and the request's place, so that equal prompts differ;
    given, equal prompts draw equal tokens. `stop_tokens` None: those of the checkpoint; they end a request and are
    part of its output, as in Hugging Face's `generate`.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"Sampling: temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling: top_p is {self.top_p}; it must be above 0 and at most 1")


class Sampler:
    """Draws the tokens of one request. Every token takes one random number, so draws do not depend on batching."""

    def __init__(self, sampling: Sampling, seed: int, stop_tokens: Iterable[int] = ()) -> None:
        """`seed` and `stop_tokens` are used where `sampling` has none."""
        self.sampling = sampling
        self.stop_tokens = frozenset(stop_tokens if sampling.stop_tokens is None else sampling.stop_tokens)
        self._generator = torch.Generator().manual_seed(seed if sampling.seed is None else sampling.seed)

    def draw(self, logits_V: Tensor) -> int:
        """Return the next token; `logits_V` lies on the CPU."""
        probabilities = (logits_V.double() / self.sampling.temperature).softmax(-1)
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        reached = ordered.cumsum(0)
        # The nucleus: tokens before which less than top_p has been reached; the first is always in.
        kept = int((reached - ordered < self.sampling.top_p).sum())
        point = torch.rand((), generator=self._generator, dtype=torch.float64) * reached[kept - 1]
        return int(tokens[min(int(torch.searchsorted(reached, point, right=True)), kept - 1)])


def choose(logits_LV: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Return the next token of each row by its request's sampler."""
    tokens = logits_LV.argmax(-1).tolist()
    drawing = [row for row, sampler in enumerate(samplers) if sampler.sampling.temperature > 0]
    if drawing:
        for row, logits_V in zip(drawing, logits_LV[drawing].cpu(), strict=True):
            tokens[row] = samplers[row].draw(logits_V)
    return tokens
