"""Workloads: which requests arrive when. Seeded; the same seed draws the same requests at every rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paperlab.serving.lengths import SIDES, STATISTICS, Empirical, LengthSource, length_source, published_statistics
from paperlab.serving.request import Request

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_REQUESTS = 500


@dataclass(frozen=True)
class Workload:
    """Requests in the order of arrival, and how they came about.

    `rate_per_s` is the nominal rate, None where all arrive at once or at the times of a trace.
    """

    name: str
    requests: tuple[Request, ...]
    seed: int | None = None
    rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if not self.requests:
            raise ValueError(f"workload {self.name}: requests is empty; give at least one")
        if len({request.request_id for request in self.requests}) < len(self.requests):
            raise ValueError(f"workload {self.name}: a request_id occurs twice; number the requests anew")
        arrivals = [request.arrival_s for request in self.requests]
        if arrivals != sorted(arrivals):
            raise ValueError(f"workload {self.name}: arrival_s falls; sort the requests by it")
        if self.rate_per_s is not None:
            _check_rate(self.rate_per_s)

    def __len__(self) -> int:
        return len(self.requests)

    def statistics(self) -> pd.DataFrame:
        """Return mean, P50, P95 and P99 of prompt and output tokens, beside those of the paper's Table 1.

        Columns: workload, side, statistic, tokens, paper_tokens and relative_error (missing where the paper has none).
        """
        import pandas as pd

        paper, rows = published_statistics(), []
        for side in SIDES:
            tokens = np.array([getattr(request, f"{side}_tokens") for request in self.requests])
            for statistic, function in STATISTICS.items():
                ours, theirs = function(tokens), paper.get((self.name, side, statistic), math.nan)
                rows.append((self.name, side, statistic, ours, theirs, ours / theirs - 1))
        columns = ["workload", "side", "statistic", "tokens", "paper_tokens", "relative_error"]
        return pd.DataFrame(rows, columns=columns)

    def scaled(self, tokens: float = 1.0, times: float = 1.0) -> Workload:
        """Return the same workload with lengths times `tokens` (at least 1 token each) and arrivals times `times`.

        For small runs on a CPU: `scaled(tokens=1 / 64)`. Its statistics are no longer the paper's, so its name says so.

        Raises:
            ValueError: a factor that is not positive.
        """
        for name, factor in (("tokens", tokens), ("times", times)):
            if not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"scaled: {name} is {factor}; it must be positive")
        scaled = tuple(
            replace(
                request,
                arrival_s=request.arrival_s * times,
                prompt_tokens=max(1, round(request.prompt_tokens * tokens)),
                output_tokens=max(1, round(request.output_tokens * tokens)),
            )
            for request in self.requests
        )
        name = self.name if tokens == 1 else f"{self.name} x{tokens:.3g}"
        return Workload(name, scaled, self.seed, self.rate_per_s and self.rate_per_s / times)


def workload(
    lengths: str | LengthSource,
    rate_per_s: float | None = None,
    requests: int | None = None,
    seed: int = 0,
    arrivals: str | Sequence[float] = "poisson",
) -> Workload:
    """Return a seeded workload, such as `workload("mixed", rate_per_s=2.0, requests=500)`.

    Args:
        lengths: `ldc`, `arxiv`, `sharegpt`, `mixed`, or a source (`fixed`, `uniform`, one from a loader).
        rate_per_s: mean arrival rate of `poisson`; left out otherwise.
        requests: how many; default 500, or all of a trace.
        seed: of lengths and arrivals, which are drawn apart: another rate only stretches the same arrivals.
        arrivals: `poisson`, `at_once` (all at time 0), `trace` (the source's own rows and times, in their order), or
            the times themselves, one per request.

    Raises:
        ValueError: an unknown name, no requests, a rate that is missing, superfluous, zero, negative or not finite.
    """
    source = length_source(lengths) if isinstance(lengths, str) else lengths
    if requests is not None and requests < 1:
        raise ValueError(f"workload {source.name}: requests is {requests}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"workload {source.name}: seed is {seed}; use an integer from 0 to 2**32 - 1")
    mode = arrivals if isinstance(arrivals, str) else "times"
    if mode == "poisson":
        if rate_per_s is None:
            raise ValueError(f"workload {source.name}: rate_per_s is missing; poisson arrivals need one")
        _check_rate(rate_per_s)
    elif rate_per_s is not None:
        raise ValueError(f"workload {source.name}: rate_per_s is {rate_per_s}; only poisson arrivals have a rate")
    if mode == "trace":
        return _replay(source, requests)
    lengths_seed, arrivals_seed = np.random.SeedSequence(seed).spawn(2)
    times_s = _arrivals(source.name, arrivals, requests, rate_per_s, np.random.default_rng(arrivals_seed))
    drawn = source.draw(np.random.default_rng(lengths_seed).random((len(times_s), 3)))
    return Workload(source.name, _requests(times_s, drawn.tolist()), seed, rate_per_s)


def _arrivals(
    name: str, arrivals: str | Sequence[float], count: int | None, rate_per_s: float | None, rng: np.random.Generator
) -> list[float]:
    if not isinstance(arrivals, str):
        if count not in (None, len(arrivals)):
            raise ValueError(f"workload {name}: requests is {count}, but there are {len(arrivals)} arrival times")
        return sorted(float(time_s) for time_s in arrivals)
    count = count or DEFAULT_REQUESTS
    if arrivals == "at_once":
        return [0.0] * count
    if arrivals != "poisson":
        raise ValueError(f"workload {name}: arrivals is {arrivals!r}; use poisson, at_once, trace, or times in seconds")
    assert rate_per_s is not None
    return (np.cumsum(rng.standard_exponential(count)) / rate_per_s).tolist()


def _replay(source: LengthSource, count: int | None) -> Workload:
    if not isinstance(source, Empirical) or source.arrivals_s is None:
        raise ValueError(f"workload {source.name}: arrivals is 'trace', but the source has no arrival_s; use poisson")
    if count is not None and count > len(source.rows):
        raise ValueError(f"workload {source.name}: requests is {count}, but the trace has {len(source.rows)}")
    order = sorted(range(len(source.rows)), key=source.arrivals_s.__getitem__)[:count]
    times_s = [source.arrivals_s[row] for row in order]
    return Workload(source.name, _requests(times_s, [source.rows[row] for row in order]))


def _requests(times_s: Sequence[float], lengths: Sequence[Sequence[int]]) -> tuple[Request, ...]:
    pairs = zip(times_s, lengths, strict=True)
    return tuple(Request(index, time_s, *tokens) for index, (time_s, tokens) in enumerate(pairs))


def _check_rate(rate_per_s: float) -> None:
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"rate_per_s is {rate_per_s}; it must be positive and finite")
