"""The evidence classes: what kind of fact a number is. Every result carries one."""

from __future__ import annotations

from enum import StrEnum


class Evidence(StrEnum):
    """How a number came about."""

    MEASURED_CPU = "measured-cpu"  # ran on this machine's processor
    MEASURED_GPU = "measured-gpu"  # ran on a CUDA device, whose name the manifest holds
    SIMULATED = "simulated"  # came out of a discrete-event or cost simulator
    ANALYTIC = "analytic"  # follows from a closed form
    PAPER = "paper"  # copied from the paper or its published artifact


def parse_evidence(value: str) -> Evidence:
    """Return the evidence class named `value`.

    Raises:
        ValueError: unknown name; the message lists the classes.
    """
    try:
        return Evidence(value)
    except ValueError:
        raise ValueError(f"evidence: {value!r} is not one of {', '.join(Evidence)}") from None
