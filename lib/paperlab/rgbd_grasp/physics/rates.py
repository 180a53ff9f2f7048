"""Success rates with Wilson's intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rate:
    """Successes among attempts; `low` and `high` bound the 95 % interval (Wilson 1927), as fractions."""

    successes: int
    attempts: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.attempts:
            raise ValueError(f"Rate: got {self.successes} successes in {self.attempts} attempts")

    @property
    def share(self) -> float:
        """The share of successes, NaN without an attempt."""
        return self.successes / self.attempts if self.attempts else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The interval, (0, 1) without an attempt."""
        if not self.attempts:
            return 0.0, 1.0
        from scipy.stats import binomtest

        found = binomtest(self.successes, self.attempts).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def rate_of(outcomes: Iterable[bool]) -> Rate:
    """Return the rate of a series of outcomes."""
    results = list(outcomes)
    return Rate(sum(results), len(results))


def rates_table(rates: dict[str, Rate], label: str) -> pd.DataFrame:
    """Return one row per rate: name, successes, attempts, and rate, low and high in percent."""
    import pandas as pd

    rows = [
        {label: name, "successes": r.successes, "attempts": r.attempts}
        | dict(zip(("rate", "low", "high"), (100 * r.share, *(100 * x for x in r.interval)), strict=True))
        for name, r in rates.items()
    ]
    return pd.DataFrame(rows)
