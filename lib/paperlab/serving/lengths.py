"""How long prompts and answers are: distributions by name, mixtures of them, and a user's own rows.

A source turns uniform numbers into lengths by inverse CDF, three numbers a request (which part of a mixture, prompt,
output). So a request depends on its own row alone: the first 100 of 500 requests are the 100 of a shorter run.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from paperlab.lab.paths import data_dir

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda tokens: float(np.mean(tokens)),
    "P50": lambda tokens: float(np.percentile(tokens, 50)),
    "P95": lambda tokens: float(np.percentile(tokens, 95)),
    "P99": lambda tokens: float(np.percentile(tokens, 99)),
}
SIDES = ("prompt", "output")


class LengthSource(ABC):
    """Lengths of prompts and outputs."""

    name: str

    @abstractmethod
    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Return tokens of prompt and output, (requests, 2) integers, from uniforms in [0, 1) of (requests, 3)."""


@dataclass(frozen=True)
class Quantiles:
    """A distribution of token counts given by knots of its inverse CDF, with straight lines (or logarithms) between."""

    levels: tuple[float, ...]
    tokens: tuple[float, ...]
    log: bool = False

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or not rising or self.levels[0] != 0 or self.levels[-1] != 1:
            raise ValueError(f"Quantiles: levels is {self.levels}; they must rise from 0 to 1")
        falling = any(a > b for a, b in zip(self.tokens, self.tokens[1:], strict=False))
        if len(self.tokens) != len(self.levels) or falling or self.tokens[0] < 0.5:
            raise ValueError(f"Quantiles: tokens is {self.tokens}; one per level, not falling, from 1 on")

    def __call__(self, uniforms: np.ndarray) -> np.ndarray:
        """Return the token counts, rounded, at `uniforms`."""
        tokens = np.log(self.tokens) if self.log else np.asarray(self.tokens)
        found = np.interp(uniforms, self.levels, tokens)
        return np.floor((np.exp(found) if self.log else found) + 0.5).astype(np.int64)


@dataclass(frozen=True)
class Lengths(LengthSource):
    """Prompt and output drawn independently."""

    name: str
    prompt: Quantiles
    output: Quantiles

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Return (requests, 2) tokens."""
        return np.stack([self.prompt(uniforms[:, 1]), self.output(uniforms[:, 2])], axis=1)


@dataclass(frozen=True)
class Mixture(LengthSource):
    """Each request comes from one of `parts`, with the given shares."""

    name: str
    parts: tuple[Lengths, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.shares) or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"Mixture {self.name}: shares is {self.shares}; one per part, adding up to 1")

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Return (requests, 2) tokens."""
        which = np.searchsorted(np.cumsum(self.shares)[:-1], uniforms[:, 0], side="right")
        drawn = np.stack([part.draw(uniforms) for part in self.parts])
        return drawn[which, np.arange(len(uniforms))]


@dataclass(frozen=True)
class Empirical(LengthSource):
    """Rows of (prompt, output) tokens as they were seen, drawn with replacement; `arrivals_s` where they are known."""

    name: str
    rows: tuple[tuple[int, int], ...]
    arrivals_s: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"{self.name}: no rows; give at least one request")
        if self.arrivals_s is not None and len(self.arrivals_s) != len(self.rows):
            raise ValueError(f"{self.name}: {len(self.arrivals_s)} arrivals for {len(self.rows)} rows")

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Return (requests, 2) tokens."""
        return np.asarray(self.rows)[(uniforms[:, 0] * len(self.rows)).astype(np.int64)]


def fixed(prompt_tokens: int, output_tokens: int) -> Lengths:
    """Return a source of equal requests."""
    return uniform((prompt_tokens, prompt_tokens), (output_tokens, output_tokens), f"{prompt_tokens}/{output_tokens}")


def uniform(prompt_tokens: tuple[int, int], output_tokens: tuple[int, int], name: str = "uniform") -> Lengths:
    """Return a source of lengths that are equally likely from the first to the last value, both included.

    Raises:
        ValueError: a first value below 1 or above the last.
    """
    for side, (first, last) in zip(SIDES, (prompt_tokens, output_tokens), strict=True):
        if not 1 <= first <= last:
            raise ValueError(f"{side}_tokens is {(first, last)}; give (first, last) with 1 <= first <= last")
    # Rounding gives each value an interval of width 1.
    knots = [Quantiles((0.0, 1.0), (first - 0.5, last + 0.5)) for first, last in (prompt_tokens, output_tokens)]
    return Lengths(name, *knots)


def length_source(name: str) -> LengthSource:
    """Return the source called `ldc`, `arxiv`, `sharegpt` (Nexus, Table 1) or `mixed` (60 % ShareGPT, 40 % LDC, §6.1).

    Raises:
        ValueError: no such source.
    """
    known = _published()
    if name == "mixed":
        return Mixture("mixed", (known["sharegpt"], known["ldc"]), (0.6, 0.4))
    if name not in known:
        raise ValueError(f"unknown workload {name!r}; known: {', '.join(sorted([*known, 'mixed']))}")
    return known[name]


@cache
def _published() -> dict[str, Lengths]:
    sides: dict[str, dict[str, Quantiles]] = {}
    rows = _read("knots.csv")
    for dataset, side in dict.fromkeys((row["dataset"], row["side"]) for row in rows):
        mine = [row for row in rows if (row["dataset"], row["side"]) == (dataset, side)]
        levels, tokens = (tuple(float(row[key]) for row in mine) for key in ("quantile", "tokens"))
        sides.setdefault(dataset, {})[side] = Quantiles(levels, tokens, mine[0]["interpolation"] == "log")
    return {name: Lengths(name, parts["prompt"], parts["output"]) for name, parts in sides.items()}


@cache
def published_statistics() -> dict[tuple[str, str, str], float]:
    """Return tokens by (dataset, side, statistic), from the paper's Table 1 or derived from it."""
    return {(row["dataset"], row["side"], row["statistic"]): float(row["tokens"]) for row in _read("statistics.csv")}


def _read(name: str) -> list[dict[str, str]]:
    with (data_dir() / "workloads" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
