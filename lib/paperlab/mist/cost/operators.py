"""Compute time of a layer: measured operator latencies where there are some, rates per kind elsewhere."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paperlab.mist.symbolic.sizes import Size
from paperlab.mist.symbolic.trace import LayerTrace
from paperlab.mist.symbolic.tracer import Unit

# Tape node -> kind of operator. Copies and layout changes have no cost in the artifact's model, nor here.
KINDS = {
    "mm": "product", "baddbmm": "scores", "bmm": "context", "causal_softmax": "softmax",
    "_scaled_dot_product_flash_attention_for_cpu": "attention", "native_layer_norm": "norm", "rms_norm": "norm",
    "add": "add", "gelu": "gelu", "swiglu": "gelu", "_RotateBackward": "gelu", "embedding": "embedding",
    "_CrossEntropyBackward": "cross_entropy",
}  # fmt: skip
_FREE = {"cat", "clone", "masked_fill_", "sub", "stack", "view"}
_PRODUCTS = ("product", "scores", "context")
# The artifact's rules for measured rows: an implausibly slow backward is taken as twice the forward, and what is
# this short is lost between launches.
_MAX_BACKWARD_RATIO = 2.3
_MIN_FORWARD_S, _MIN_BACKWARD_S = 50e-6, 100e-6

Key = tuple[str, tuple[int, ...]]
Latency = tuple[float, float]  # forward and backward, s


@dataclass(frozen=True)
class Rate:
    """How fast one kind of operator runs: forward work (FLOPs or bytes) per second, and backward over forward time."""

    resource: str  # "flops" or "bytes"
    forward_per_s: float
    backward_ratio: float

    def __post_init__(self) -> None:
        if self.resource not in ("flops", "bytes"):
            raise ValueError(f"resource is {self.resource!r}; choose flops or bytes")
        if not (self.forward_per_s > 0 and self.backward_ratio >= 0):
            raise ValueError(f"rates must be positive, not {self.forward_per_s} and {self.backward_ratio}")


def key(unit: Unit, batch: int, tp: int) -> Key | None:
    """Return the kind and shape under which a table holds the operator; None for one without cost."""
    kind = KINDS.get(unit.kind)
    if kind is None:
        if unit.kind in _FREE or unit.kind.startswith("_Leave") or not unit.touched_bytes["forward"]:
            return None
        kind = "gelu"  # an operator nobody has seen: elementwise until measured
    dims = [dim.exact(batch, tp) for dim in unit.dims]
    if kind == "product":
        return kind, (dims[0], dims[1], dims[3])
    if kind in ("scores", "context"):
        return kind, (dims[0], dims[1], dims[5])
    if kind == "attention":
        return kind, tuple(dims[:4])
    if kind == "embedding":
        return kind, (dims[0], dims[1], math.prod(dims[2:]))
    return kind, (math.prod(dims[: unit.first_rank]),)


@dataclass(frozen=True)
class OperatorModel:
    """Latencies of one device: rows by kind and shape, and a rate for every kind to serve all other shapes.

    `thresholds` applies the artifact's rules to rows (see the constants of this module).
    """

    rows: Mapping[Key, Latency]
    rates: Mapping[str, Rate]
    thresholds: bool = True

    def unit_s(self, unit: Unit, batch: int, tp: int) -> Latency:
        """Return forward and backward seconds of one operator."""
        where = key(unit, batch, tp)
        if where is None:
            return 0.0, 0.0
        if where in self.rows:
            return self._adjusted(*self.rows[where])
        rate = self.rates[where[0]]
        work = unit.flops["forward"] if rate.resource == "flops" else unit.touched_bytes["forward"]
        forward_s = float(work.at(batch, tp)) / rate.forward_per_s
        return forward_s, rate.backward_ratio * forward_s

    def _adjusted(self, forward_s: float, backward_s: float) -> Latency:
        if not self.thresholds:
            return forward_s, backward_s
        if backward_s > _MAX_BACKWARD_RATIO * forward_s:
            backward_s = 2 * forward_s
        if forward_s < _MIN_FORWARD_S or backward_s < _MIN_BACKWARD_S:
            return 0.0, 0.0
        return forward_s, backward_s

    def layer_s(self, trace: LayerTrace, batch: int, tp: int) -> Latency:
        """Return forward and backward compute seconds of a layer, tensor-parallel messages not included."""
        times = [self.unit_s(unit, batch, tp) for unit in trace.units]
        return sum(forward for forward, _ in times), sum(backward for _, backward in times)

    def accumulate_s(self, weights: Size, element_bytes: int, batch: int, tp: int) -> float:
        """Return the seconds to add one layer's gradients to those of earlier micro-batches."""
        size = weights.exact(batch, tp)
        found = self.rows.get(("accumulate", (size // element_bytes,)))
        return found[1] if found else 3 * size / self.rates["accumulate"].forward_per_s


def read_rows(path: Path) -> dict[Key, Latency]:
    """Read a table of latencies; ValueError names the line that is not `kind,shape,forward_ms,backward_ms`."""
    rows: dict[Key, Latency] = {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            shape = tuple(int(part) for part in row["shape"].split("x"))
            rows[row["kind"], shape] = float(row["forward_ms"]) / 1e3, float(row["backward_ms"]) / 1e3
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path.name}: row {number} is {row}; {error}") from None
    return rows


def forward_work(where: Key, element_bytes: int = 2) -> tuple[str, float]:
    """Return the resource of an operator and its forward work, from its shape alone."""
    kind, shape = where
    if kind in _PRODUCTS:
        if kind == "product":
            return "flops", 2.0 * math.prod(shape)
        return "flops", 2.0 * shape[0] * shape[1] ** 2 * shape[2]
    if kind == "attention":
        batch, heads, seq, width = shape
        return "flops", 4.0 * batch * heads * seq**2 * width
    passes = {"norm": 2, "add": 3, "gelu": 2, "softmax": 2, "cross_entropy": 8, "accumulate": 3}
    elements = math.prod(shape[1:]) if kind == "embedding" else shape[0]
    return "bytes", float(element_bytes * elements * passes.get(kind, 3))


def rates_of(rows: Mapping[Key, Latency]) -> dict[str, Rate]:
    """Return the rate of every kind in a table, from its row with most work: small ones are bound by launches."""
    largest: dict[str, tuple[float, str, Latency]] = {}
    for where, latency in rows.items():
        resource, work = forward_work(where)
        largest[where[0]] = max(largest.get(where[0], (0.0, resource, latency)), (work, resource, latency))
    rates = {}
    for kind, (work, resource, (forward_s, backward_s)) in largest.items():
        if kind == "accumulate":  # happens in backward only
            rates[kind] = Rate(resource, work / backward_s, 0.0)
        else:
            ratio = backward_s / forward_s
            rates[kind] = Rate(resource, work / forward_s, 2.0 if ratio > _MAX_BACKWARD_RATIO else ratio)
    return rates
