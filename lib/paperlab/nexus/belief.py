"""What the controller holds true of a device beside its data sheet: a saturation curve per phase and operator."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from paperlab.lab.files import write_atomic
from paperlab.lab.paths import data_dir
from paperlab.serving.saturation import Saturation

PHASES = ("prefill", "decode")
PHASE_OPERATORS = {phase: ("qkv", f"{phase}_attention", "out", "ffn", "head") for phase in PHASES}
KEYS = tuple((phase, name) for phase in PHASES for name in PHASE_OPERATORS[phase])
_COLUMNS = ["family", "phase", "operator", "efficiency", "knee", "decay"]
DIGITS = 4
PROPORTIONAL = Saturation()
PUBLISHED_ROWS = 20  # sequences in the decode batch to which the published figures are fitted


@dataclass(frozen=True)
class Curve:
    """How fast one operator's arithmetic runs: `efficiency` of the peak on the whole device, `saturation` below it."""

    efficiency: float = 1.0
    saturation: Saturation = PROPORTIONAL

    def __post_init__(self) -> None:
        if not self.efficiency > 0:
            raise ValueError(f"Curve: efficiency is {self.efficiency}; it must be positive")


@dataclass(frozen=True)
class Belief:
    """What the controller holds true of a device, beside its data sheet.

    `curves` go by phase and operator, as thin decode batches use the units less well than prompts do. By default
    memory runs at peak and an iteration has no fixed cost, as published. So is arithmetic proportional to the decode
    batch; `tile_rows` above 1 makes thin batches of the linear operators pay for full tiles of so many rows instead.
    """

    curves: Mapping[tuple[str, str], Curve] = field(hash=False)
    memory_efficiency: float = 1.0
    overhead_s: float = 0.0
    tile_rows: int = 1

    def __post_init__(self) -> None:
        if set(self.curves) != set(KEYS):
            raise ValueError(f"Belief: curves are for {sorted(self.curves)}; give one for each of {KEYS}")
        if not 0 < self.memory_efficiency <= 1.5:
            raise ValueError(f"Belief: memory_efficiency is {self.memory_efficiency}; it must be in (0, 1.5]")
        if not self.overhead_s >= 0:
            raise ValueError(f"Belief: overhead_s is {self.overhead_s}; it must not be negative")
        if self.tile_rows < 1:
            raise ValueError(f"Belief: tile_rows is {self.tile_rows}; it must be at least 1")

    def padded(self, rows: int) -> float:
        """Return by how much more arithmetic a batch of `rows` decode tokens costs than its own."""
        return -(-rows // self.tile_rows) * self.tile_rows / rows

    def with_tiles(self, tile_rows: int, fitted_rows: int = PUBLISHED_ROWS) -> Belief:
        """Return the belief with another `tile_rows`, equal to this one for decode batches of `fitted_rows`."""
        wanted = replace(self, tile_rows=tile_rows)
        factor = wanted.padded(fitted_rows) / self.padded(fitted_rows)
        curves = {
            key: replace(curve, efficiency=curve.efficiency * factor) if is_padded(*key) else curve
            for key, curve in self.curves.items()
        }
        return replace(wanted, curves=curves)


def is_padded(phase: str, operator: str) -> bool:
    """Return whether an operator multiplies the rows of a thin batch by a matrix."""
    return phase == "decode" and operator != "decode_attention"


def published_belief(family: str = "slope", tile_rows: int = 1) -> Belief:
    """Return the fit to what the paper states about its L20, the default on every device.

    It was made by `saturation.published_fit` and lies in `data/nexus/belief.csv`, since a fit takes seconds.
    """
    stored = _stored(data_dir() / "nexus" / "belief.csv")
    if family not in stored:
        raise ValueError(f"family is {family!r}; use one of {', '.join(stored)}")
    return stored[family] if tile_rows == 1 else stored[family].with_tiles(tile_rows)


def save(path: Path, beliefs: Mapping[str, Belief]) -> None:
    """Write the curves of `beliefs`, by family."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for family, belief in beliefs.items():
        for (phase, name), curve in belief.curves.items():
            values = (curve.efficiency, curve.saturation.knee, curve.saturation.decay)
            writer.writerow([family, phase, name, *(f"{value:.{DIGITS}f}" for value in values)])
    write_atomic(path, text.getvalue())


@cache
def _stored(path: Path) -> dict[str, Belief]:
    curves: dict[str, dict[tuple[str, str], Curve]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != _COLUMNS:
            raise ValueError(f"{path.name}: columns must be {','.join(_COLUMNS)}, found {reader.fieldnames}")
        for row in reader:
            saturation = Saturation(float(row["knee"]), float(row["decay"]), row["family"])
            curves.setdefault(row["family"], {})[row["phase"], row["operator"]] = Curve(
                float(row["efficiency"]), saturation
            )
    return {family: Belief(found) for family, found in curves.items()}
