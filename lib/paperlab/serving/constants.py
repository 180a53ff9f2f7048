"""How far a device falls short of its peaks when it serves: one set of constants per device, used everywhere.

They live in `data/serving/constants.yaml` with the source of each. The engine's own machine can be calibrated from
a log (`engine.calibrate`), so that the simulator can be tested against measured runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import yaml

from paperlab.lab.paths import data_dir
from paperlab.serving.cost import OPERATORS
from paperlab.serving.saturation import Saturation


@dataclass(frozen=True)
class DeviceConstants:
    """Reachable fractions of the peaks, fixed costs, and saturation curves of one device.

    `step_overhead_s` is paid once per iteration, `token_overhead_s` per sequence whose next token comes out.
    `mixed_penalty` stretches iterations that mix prefill and decode; `corun_penalty` stretches whatever runs beside
    another lane on the same device, on top of what shared bandwidth costs; `attention_sweeps` is how often a prefill
    chunk's attention reads the stored keys and values from memory (1: a perfect cache); `decode_sweeps` is the same for
    decode (1: read in place; a gather copies them first). All are 1 unless measured.
    """

    compute_efficiency: float
    memory_efficiency: float
    step_overhead_s: float
    source: str
    mixed_penalty: float = 1.0
    corun_penalty: float = 1.0
    attention_sweeps: float = 1.0
    decode_sweeps: float = 1.0
    token_overhead_s: float = 0.0
    compute_curves: Mapping[str, Saturation] = field(default_factory=dict, hash=False)
    memory_curve: Saturation = field(default_factory=Saturation)

    def __post_init__(self) -> None:
        for name in ("compute_efficiency", "memory_efficiency"):
            if not 0 < getattr(self, name) <= 1.5:
                raise ValueError(
                    f"DeviceConstants: {name} is {getattr(self, name)}; it must be above 0 and at most 1.5"
                )
        for name in ("mixed_penalty", "corun_penalty", "attention_sweeps", "decode_sweeps"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"DeviceConstants: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("step_overhead_s", "token_overhead_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"DeviceConstants: {name} is {getattr(self, name)}; it must not be negative")
        if unknown := set(self.compute_curves) - set(OPERATORS):
            raise ValueError(f"DeviceConstants: curves for unknown operators {sorted(unknown)}")

    def compute_curve(self, operator: str) -> Saturation:
        """Return the compute curve of `operator` (proportional where none is given)."""
        return self.compute_curves.get(operator, Saturation())


def constants(device: str) -> DeviceConstants:
    """Return the constants of the device with this name in `data/hardware`; ValueError where there are none."""
    table = _table()
    if device not in table:
        raise ValueError(f"no serving constants for device {device!r}; there is one for {', '.join(table)}")
    return table[device]


@cache
def _table() -> dict[str, DeviceConstants]:
    path = data_dir() / "serving" / "constants.yaml"
    return {name: _parse(name, row) for name, row in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def _parse(name: str, row: dict[str, Any]) -> DeviceConstants:
    known = {item.name for item in fields(DeviceConstants)}
    if unknown := set(row) - known:
        raise ValueError(f"constants.yaml: {name}: unknown keys {sorted(unknown)}; known: {', '.join(sorted(known))}")
    values = dict(row)
    if "memory_curve" in values:
        values["memory_curve"] = Saturation(**values["memory_curve"])
    curves = values.get("compute_curves", {})
    values["compute_curves"] = {operator: Saturation(**curve) for operator, curve in curves.items()}
    try:
        return DeviceConstants(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"constants.yaml: {name}: {error}") from None
