"""Tables as files: deterministic CSV, and Markdown and LaTeX for people."""

from __future__ import annotations

import io
from numbers import Integral, Real
from typing import TYPE_CHECKING

from paperlab.lab.evidence import parse_evidence

if TYPE_CHECKING:
    import pandas as pd

# Nine significant digits keep a float32 exactly and hide the last-bit noise of sums in float64.
_CSV_DIGITS = "%.9g"
_READABLE_DIGITS = 4
_LARGE = 10**_READABLE_DIGITS  # from here on, thousands separators read better than an exponent


def with_evidence(frame: pd.DataFrame, evidence: str | None, name: str) -> pd.DataFrame:
    """Return `frame` with a valid `evidence` column, filled with `evidence` where it has none.

    Raises:
        ValueError: no rows, no evidence, an unknown class, or both a column and a differing argument.
    """
    if frame.empty:
        raise ValueError(f"{name}: the table has no rows; a result that could not be had is a row that says so")
    if "evidence" not in frame.columns:
        if evidence is None:
            raise ValueError(f"{name}: give evidence=... or a column 'evidence'")
        frame = frame.assign(evidence=parse_evidence(evidence).value)
    elif evidence is not None and set(frame["evidence"]) != {evidence}:
        raise ValueError(f"{name}: evidence={evidence!r} contradicts the table's own column")
    return frame.assign(evidence=[parse_evidence(value).value for value in frame["evidence"]])


def to_csv(frame: pd.DataFrame) -> str:
    """Return `frame` as CSV: no index, Unix line ends, floats with nine significant digits."""
    return frame.to_csv(index=False, lineterminator="\n", float_format=_CSV_DIGITS)


def to_markdown(frame: pd.DataFrame) -> str:
    """Return `frame` as a GitHub Markdown table with four significant digits."""
    # A pipe inside a cell would end the cell.
    return readable(frame).replace(r"\|", r"\\|", regex=True).to_markdown(index=False, disable_numparse=True)


def to_latex(frame: pd.DataFrame) -> str:
    """Return `frame` as a LaTeX tabular (booktabs) with four significant digits."""
    return readable(frame).to_latex(index=False, escape=True)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with every cell as text for people: four significant digits, nothing for missing values."""
    return frame.map(_readable)


def render(frame: pd.DataFrame) -> dict[str, str]:
    """Return the contents of all three files by extension."""
    return {"csv": to_csv(frame), "md": to_markdown(frame) + "\n", "tex": to_latex(frame)}


def read_csv(text: str) -> pd.DataFrame:
    """Parse a table written by `to_csv`; empty cells of text columns stay empty strings."""
    import pandas as pd

    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def _readable(value: object) -> str:
    import pandas as pd

    if value is None or (not isinstance(value, list | tuple) and pd.isna(value)):  # type: ignore[call-overload]
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = float(value)
        return f"{number:,.0f}" if _LARGE <= abs(number) < 1e15 else f"{number:.{_READABLE_DIGITS}g}"
    return str(value)
