"""Clocks: device events on a GPU, the wall clock on a CPU; every single time is kept. Free of torch until called."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from paperlab import hardware


def default_device() -> str:
    """Return "cuda" where torch finds a CUDA device, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def machine(device: str) -> dict[str, str]:
    """Return the columns that every measured row carries: evidence class and the name of the GPU or processor."""
    if device == "cuda":
        import torch

        return {"evidence": "measured-gpu", "device": torch.cuda.get_device_name()}
    return {"evidence": "measured-cpu", "device": hardware.this_machine().cpu}


@cache
def roofline(device: str, dtype: str) -> hardware.Roofline | None:
    """Return the ceilings of `device`: the datasheet's on a GPU, measured on a CPU; None where they are not known.

    On a CPU they hold for fp32 alone.
    """
    if device != "cuda":
        return hardware.measure_cpu() if dtype == "fp32" else None
    known = {spec.cuda_name: spec for spec in hardware.devices().values()}
    spec = known.get(machine(device)["device"])
    return hardware.Roofline.of(spec, dtype) if spec and dtype in spec.peak_flops_per_s else None


def timed(
    action: Callable[[], Any], repeats: int, device: str, before: Callable[[], Any] = lambda: None
) -> list[float]:
    """Return the seconds of each of `repeats` runs of `action`; `before` runs ahead of each, outside of the time.

    On a GPU events mark begin and end on the device, and the host waits for it only once, after the last run.
    """
    marks = [_Mark(device) for _ in range(2 * repeats)]
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        before()
        begin.set()
        action()
        end.set()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return [end.seconds_since(begin) for begin, end in zip(marks[::2], marks[1::2], strict=True)]


class _Mark:
    """A point in time, on the device's own clock where it has one."""

    def __init__(self, device: str) -> None:
        self._event: Any = None
        if device == "cuda":
            import torch

            self._event = torch.cuda.Event(enable_timing=True)
        self._host_s = 0.0

    def set(self) -> None:
        if self._event is not None:
            self._event.record()
        self._host_s = time.perf_counter()

    def seconds_since(self, earlier: _Mark) -> float:
        if self._event is not None and earlier._event is not None:
            return earlier._event.elapsed_time(self._event) / 1e3
        return self._host_s - earlier._host_s
