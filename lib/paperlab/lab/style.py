"""The look of every figure: one theme, one palette, deterministic SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_INCHES = (7.0, 4.0)
_RC: dict[str, Any] = {
    "figure.figsize": FIGURE_INCHES,
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "paperlab",  # element ids come from this salt, not from a random one
}


def use_style() -> None:
    """Apply the house theme to matplotlib and seaborn for this process."""
    import seaborn

    seaborn.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=_RC)


def render(figure: Figure, kind: str) -> bytes:
    """Return `figure` as the bytes of an `svg` or `png` file without dates or tool versions in it."""
    metadata = {"svg": {"Date": None, "Creator": "paperlab"}, "png": {"Software": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def footer(figure: Figure, text: str) -> None:
    """Put `text` in small gray letters under the figure, so that a copied image still tells its evidence."""
    figure.text(0.0, -0.01, text, ha="left", va="top", fontsize=7, color="0.4", transform=figure.transFigure)
