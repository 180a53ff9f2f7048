"""The what-if drawing of `40_tempo_idea`: what one layer keeps, operator by operator, for sizes the reader picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from paperlab.tempo.memory.accounting import PLAIN, TEMPO, LayerShape, retained_terms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD_SIZE = 64
DTYPE_BYTES = {"fp32": 4, "16-bit": 2}


def kept_by_operator(seq_len: int, hidden: int, dtype: str, batch: int = 8) -> pd.DataFrame:
    """Return MiB kept by one encoder layer: index operator, columns paper era, modern, Tempo.

    Raises:
        ValueError: `dtype` is neither "fp32" nor "16-bit", or `hidden` is not a multiple of the head size, 64.
    """
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"dtype is {dtype!r}; use one of {', '.join(DTYPE_BYTES)}")
    if hidden % HEAD_SIZE:
        raise ValueError(f"hidden is {hidden}; it must be a multiple of the head size, {HEAD_SIZE}")
    shape = LayerShape(batch, seq_len, hidden, hidden // HEAD_SIZE, DTYPE_BYTES[dtype])
    arms = {"paper era": (PLAIN, "paper"), "modern": (PLAIN, "modern"), "Tempo": (TEMPO, "modern")}
    return pd.DataFrame({arm: retained_terms(shape, *form) for arm, form in arms.items()}) / 2**20  # type: ignore[arg-type]


def draw_kept(axes: Axes, seq_len: int, hidden: int, dtype: str) -> None:
    """Draw `kept_by_operator` as stacked bars, with Tempo's ratios in the title."""
    table = kept_by_operator(seq_len, hidden, dtype)
    table.T.plot.bar(stacked=True, ax=axes, width=0.65, rot=0, legend=False)
    total = table.sum()
    ratios = " and ".join(f"{total[arm] / total['Tempo']:.2f}x" for arm in ("paper era", "modern"))
    axes.set_title(f"S = {seq_len}, H = {hidden}, {dtype}: {ratios}", fontsize=10)
    axes.set_ylabel("MiB kept, B = 8")
    axes.legend(fontsize=7)
