"""GELU from its output, studied: the curve, the error of each evaluator, and where along x it lies."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F

from paperlab.tempo.ops.gelu_fit import Approximate, derivative, exact, minimum, side_threshold
from paperlab.tempo.studies.gelu_error import derivative_error, information_floor
from paperlab.tempo.studies.published import released_derivative

FORMS: dict[Approximate, str] = {"none": "erf", "tanh": "tanh"}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FLOOR = "floor: exact inversion of the rounded y"
_BINS_PER_UNIT = 20


def curve() -> pd.DataFrame:
    """Return GELU on [-4, 4] in fp64: columns form, x, y, slope, side of the minimum."""
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    tables = []
    for form, label in FORMS.items():
        y, slope = exact(x, form)
        side = ["right" if right else "left" for right in x >= minimum(form).x]
        tables.append(pd.DataFrame({"form": label, "x": x, "y": y, "slope": slope, "side": side}))
    return pd.concat(tables, ignore_index=True)


def evaluator_table(points: int) -> pd.DataFrame:
    """Return the largest and rms error of g' by form, dtype, evaluator and region, beside the information floor."""
    tables = []
    for form, label in FORMS.items():
        for dtype in DTYPES:
            found = {FLOOR: information_floor(dtype, form, points)}
            found |= {name: derivative_error(dtype, form, name, points) for name in ("fit", "paper", "newton")}
            common = {"form": label, "dtype": str(dtype).removeprefix("torch.")}
            tables += [table.assign(evaluator=name, **common) for name, table in found.items()]
    columns = ["form", "dtype", "evaluator", "region", "max_error", "rms_error"]
    return pd.concat(tables, ignore_index=True)[columns]


def error_along_x(points: int) -> pd.DataFrame:
    """Return the largest fp32 error of g' (erf form) in bins of x: columns evaluator, x, max_error."""
    x = torch.linspace(-10, 10, points)
    y, side = F.gelu(x), x >= side_threshold(torch.float32)
    slope = exact(x.double())[1]
    found = {
        "our fit": derivative(y, side),
        "polynomials in y": derivative(y, side, evaluator="paper"),
        "polynomials in y, as released": released_derivative(y, side),
    }
    bins = torch.round(x * _BINS_PER_UNIT) / _BINS_PER_UNIT
    tables = [
        pd.DataFrame({"evaluator": name, "x": bins.double(), "max_error": (value.double() - slope).abs()})
        for name, value in found.items()
    ]
    return pd.concat(tables).groupby(["evaluator", "x"], sort=False, as_index=False).max()
