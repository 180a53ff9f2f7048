"""Traces compiled to NumPy functions of whole arrays of batch and tp, by way of sympy's lambdify."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np
import sympy
from numpy.typing import ArrayLike

from paperlab.mist.models import ModelSpec
from paperlab.mist.symbolic.sizes import BATCH, TP
from paperlab.mist.symbolic.trace import KINDS, LayerTrace, symbolic_trace

SIZES = (
    "saved", "input", "output", "forward_peak", "recomputed_forward_peak", "backward_peak", "recomputed_backward_peak",
    "weights", "workspace",
)  # fmt: skip


@dataclass(frozen=True)
class LayerSizes:
    """Values of a layer's sizes (see `LayerTrace`) in bytes, for the batch and tp they were asked for."""

    saved: Any
    input: Any
    output: Any
    forward_peak: Any
    recomputed_forward_peak: Any
    backward_peak: Any
    recomputed_backward_peak: Any
    weights: Any
    workspace: Any


class CompiledLayer:
    """One layer's sizes as one compiled function with shared subexpressions."""

    def __init__(self, trace: LayerTrace) -> None:
        self.trace = trace
        expressions = [getattr(trace, name).expression() for name in SIZES]
        modules = [{"Max": lambda *values: reduce(np.maximum, values)}, "numpy"]
        self._function = sympy.lambdify((BATCH, TP), expressions, modules=modules, cse=True)

    def __call__(self, batch: ArrayLike, tp: ArrayLike) -> LayerSizes:
        """Evaluate for (arrays of) batch and tp, which broadcast.

        Raises:
            ValueError: tp does not divide a dimension of the model; names tp and the dimension.
        """
        b, t = np.broadcast_arrays(np.asarray(batch, float), np.asarray(tp, float))
        self._check(np.unique(t))
        values = (np.broadcast_to(value, b.shape)[()] for value in self._function(b, t))
        return LayerSizes(*values)

    def _check(self, sizes: Any) -> None:
        for tp in sizes:
            if wrong := [size for size in self.trace.divisors if size % tp]:
                raise ValueError(f"tp is {tp:g}; it does not divide {wrong[0]}, a size of the {self.trace.kind}")


@cache
def compiled(spec: ModelSpec) -> dict[str, CompiledLayer]:
    """Trace and compile embedding, block and head of a model; cached."""
    traces = symbolic_trace(spec)
    return {kind: CompiledLayer(traces[kind]) for kind in KINDS}
