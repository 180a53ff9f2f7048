"""The paper's two workloads, all requests there at time zero (§6.1, Fig. 9), and equal requests for its sweeps.

The paper states neither lengths' statistics nor its sampling. `arxiv` draws from 4,000 evenly spaced rows of Vidur's
arXiv-summarization trace (at most 4,096 tokens together, which fits the axis of Fig. 9); `sharegpt` from quantiles of
an OpenChat ShareGPT trace under the filter of vLLM's own benchmark, prompt and output drawn independently.
"""

from __future__ import annotations

import csv
from functools import cache

from paperlab.lab.paths import data_dir
from paperlab.serving.lengths import Lengths, LengthSource, Quantiles
from paperlab.serving.loaders import load_csv
from paperlab.serving.workload import Workload
from paperlab.serving.workload import workload as core_workload

PAPER_REQUESTS = {"arxiv": 500, "sharegpt": 2000}


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
    if name == "arxiv":
        loaded = load_csv(data_dir() / "seesaw" / "arxiv_4k.csv")
        return type(loaded)("arxiv", loaded.rows)
    if name != "sharegpt":
        raise ValueError(f"unknown workload {name!r}; known: {', '.join(PAPER_REQUESTS)}")
    with (data_dir() / "seesaw" / "lengths.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == name]
    sides = []
    for side in ("prompt", "output"):
        mine = [row for row in rows if row["side"] == side]
        levels, tokens = (tuple(float(row[key]) for row in mine) for key in ("quantile", "tokens"))
        sides.append(Quantiles(levels, tokens))
    return Lengths(name, *sides)
