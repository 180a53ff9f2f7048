"""Exact sizes as polynomials in the per-device batch b and 1/tp, which is what tracing leaves of every shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

BATCH = sympy.Symbol("b", positive=True, integer=True)
TP = sympy.Symbol("t", positive=True, integer=True)


@dataclass(frozen=True)
class Size:
    """Σ coefficient · b^i / t^j: `terms` maps (i, j) to a positive or negative rational; zero terms are left out."""

    terms: tuple[tuple[tuple[int, int], Fraction], ...] = ()

    @classmethod
    def of(cls, terms: dict[tuple[int, int], Fraction]) -> Size:
        """Build a size from a mapping, in a canonical order."""
        return cls(tuple(sorted((powers, value) for powers, value in terms.items() if value)))

    @classmethod
    def constant(cls, value: int) -> Size:
        """Return a size that depends on nothing."""
        return cls.of({(0, 0): Fraction(value)})

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for powers, value in other.terms:
            terms[powers] = terms.get(powers, Fraction(0)) + value
        return Size.of(terms)

    def __mul__(self, factor: int | Fraction) -> Size:
        return Size.of({powers: value * factor for powers, value in self.terms})

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __bool__(self) -> bool:
        return bool(self.terms)

    def at(self, batch: ArrayLike, tp: ArrayLike) -> Any:
        """Return the value for (arrays of) batch and tp, broadcast; exact below 2⁵³ where tp divides the model."""
        b, t = np.asarray(batch, float), np.asarray(tp, float)
        total: Any = np.zeros(np.broadcast_shapes(b.shape, t.shape))
        for (i, j), value in self.terms:
            total = total + float(value) * b**i / t**j
        return total[()]

    def exact(self, batch: int, tp: int) -> int:
        """Return the value as an integer; ValueError where it is not one, as when tp does not divide a dimension."""
        value = sum((c * Fraction(batch) ** i / Fraction(tp) ** j for (i, j), c in self.terms), Fraction(0))
        if value.denominator != 1:
            raise ValueError(f"tp is {tp}; it does not divide this size, {self.expression()}")
        return int(value)

    def expression(self) -> sympy.Expr:
        """Return the size as a sympy expression in b and t."""
        terms = (sympy.Rational(c.numerator, c.denominator) * BATCH**i / TP**j for (i, j), c in self.terms)
        return sympy.Add(*terms)

    def never_exceeds(self, other: Size) -> bool:
        """Whether this is at most `other` for every b ≥ 1 and t ≥ 1, as far as coefficients show."""
        return all(value >= 0 for _, value in (other - self).terms)


def total(sizes: Iterable[Size]) -> Size:
    """Return the sum of sizes."""
    return reduce(Size.__add__, sizes, Size())


@dataclass(frozen=True)
class Peak:
    """The largest of several snapshots: sizes that no other one dominates, each with the place where it occurs."""

    candidates: tuple[tuple[Size, str], ...]

    @classmethod
    def of(cls, snapshots: Iterable[tuple[Size, str]]) -> Peak:
        """Drop repeated sizes and those that another snapshot provably exceeds (sizes are sums of positive terms)."""
        first: dict[Size, str] = {}
        for size, place in snapshots:
            first.setdefault(size, place)
        kept = [
            (size, place)
            for size, place in first.items()
            if not any(size.never_exceeds(other) for other in first if other != size)
        ]
        return cls(tuple(kept))

    def expression(self) -> sympy.Expr:
        """Return the peak as one sympy expression."""
        return sympy.Max(*(size.expression() for size, _ in self.candidates))

    def at(self, batch: ArrayLike, tp: ArrayLike) -> Any:
        """Return the largest candidate for (arrays of) batch and tp."""
        return reduce(np.maximum, [size.at(batch, tp) for size, _ in self.candidates])

    def place(self, batch: int, tp: int) -> str:
        """Return where the peak lies for one batch and tp."""
        values: NDArray[Any] = np.array([size.at(batch, tp) for size, _ in self.candidates])
        return self.candidates[int(values.argmax())][1]

    def exact(self, batch: int, tp: int) -> int:
        """Return the peak as an integer."""
        return max(size.exact(batch, tp) for size, _ in self.candidates)
