"""The paper's two workloads, all requests there at time zero (§6.1, Fig. 9), and equal requests for its sweeps.

The paper states neither lengths' statistics nor its sampling. Both workloads are drawn from published quantiles
(`data/seesaw/lengths.csv`): `arxiv` from those of Vidur's arXiv-summarization trace, whose requests have at most 4,096
tokens together, which fits the axis of Fig. 9; `sharegpt` from those of an OpenChat ShareGPT trace under the filter of
vLLM's own benchmark, prompt and output drawn independently.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from functools import cache

import numpy as np

from paperlab.lab.paths import data_dir
from paperlab.serving.lengths import SIDES, Empirical, Lengths, LengthSource, Quantiles
from paperlab.serving.workload import Workload
from paperlab.serving.workload import workload as core_workload

PAPER_REQUESTS = {"arxiv": 500, "sharegpt": 2000}
ARXIV_TOKENS = 4096  # at most, prompt and output together: the filter of the trace
PAIRS = 4000  # rows that stand for the whole distribution of `arxiv`


def workload(lengths: str | LengthSource, requests: int | None = None, seed: int = 0) -> Workload:
    """Return `requests` of `arxiv` or `sharegpt` (by default as many as the paper's), or of a source of your own.

    Raises:
        ValueError: an unknown name, or no requests.
    """
    count = PAPER_REQUESTS.get(lengths, 500) if requests is None and isinstance(lengths, str) else requests
    source = length_source(lengths) if isinstance(lengths, str) else lengths
    return core_workload(source, requests=count, seed=seed, arrivals="at_once")


@cache
def length_source(name: str) -> LengthSource:
    """Return the source called `arxiv` or `sharegpt`; ValueError for another name."""
    if name not in PAPER_REQUESTS:
        raise ValueError(f"unknown workload {name!r}; known: {', '.join(PAPER_REQUESTS)}")
    prompt, output = (published(name, side) for side in SIDES)
    if name == "arxiv":
        return Empirical(name, paired(prompt, output, ARXIV_TOKENS, PAIRS))
    return Lengths(name, prompt, output)


def published(name: str, side: str) -> Quantiles:
    """Return the published quantiles of one side of `arxiv` or `sharegpt`, in tokens."""
    with (data_dir() / "seesaw" / "lengths.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["side"]) == (name, side)]
    levels, tokens = (tuple(float(row[key]) for row in rows) for key in ("quantile", "tokens"))
    return Quantiles(levels, tokens)


def paired(prompt: Quantiles, output: Quantiles, most: int, rows: int, seed: int = 0) -> tuple[tuple[int, int], ...]:
    """Return rows of both distributions, paired at random so that none has more than `most` tokens together.

    All pairings that keep to `most` are equally likely: the longest output chooses first, evenly among the prompts
    that fit, and whoever comes later may choose among those and more. So both distributions stay what they are, and
    long outputs go with short prompts, as in a trace that was filtered by the sum.

    Raises:
        ValueError: no prompt is left that fits an output.
    """
    levels = (np.arange(rows) + 0.5) / rows
    left, found, rng = prompt(levels).tolist(), [], np.random.default_rng(seed)
    for tokens in reversed(output(levels).tolist()):
        fitting = bisect_right(left, most - tokens)
        if not fitting:
            raise ValueError(f"paired: most is {most}; no prompt is left that fits {tokens} output tokens")
        found.append((left.pop(int(rng.integers(fitting))), tokens))
    return tuple(found)
