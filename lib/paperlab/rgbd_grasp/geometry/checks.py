"""Arrays from outside, checked where they come in: one line that names the field, what it got and what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


def floats(name: str, value: ArrayLike, *shape: int | None, finite: bool = True) -> Floats:
    """Return `value` as an array of floats of the given shape, None standing for any length.

    Float arrays come back as they are, not copied; integers become float64. Raises ValueError for another shape,
    for what is no number, and for NaN or infinity unless `finite` is False.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: got {array.dtype}, needs real numbers")
    if len(array.shape) != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: got shape {array.shape}, needs ({wanted})")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinity in {int((~np.isfinite(array)).sum())} places, needs numbers")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of `allowed`; raises ValueError that lists them otherwise."""
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, needs one of {', '.join(allowed)}")
    return value
