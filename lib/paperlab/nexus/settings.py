"""Nexus's parameters: the paper's constants, and a documented default for each thing that the paper leaves open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_CHOICES = {
    "curve": ("slope", "exponential"),
    "contention": ("bytes", "rate", "none"),
    "infeasible": ("clamp", "keep"),
    "victims": ("newest", "prefill-first"),
}


@dataclass(frozen=True)
class Settings:
    """All that can be set. The first four are the paper's (§5); everything else is open there and swept in `studies`.

    Durations in seconds, shares in percent of the multiprocessors ("points" for differences).
    """

    alpha: float = 1.3  # slack of prefill: T_prefill <= alpha * its optimum, while decode is the target
    beta: float = 1.1  # slack of decode, while prefill is the target
    kv_switch: float = 0.7  # up to this usage of the pool prefill is the target, above it decode
    gamma_tokens_per_s: float = 15.0  # what a second of waiting is worth in SPF; the unit is our reading

    delta_points: float = 5.0  # a layout closer than this to the current one is not worth a switch; inf: never
    period: int = 1  # search at every k-th iteration start of either lane
    curve: str = "slope"  # family of the saturation curves that are fitted to the published points
    tile_rows: int = 1  # rows of a matrix tile that a thin decode batch pays for in full; 1: arithmetic as published
    contention: str = "bytes"  # decode attention's bandwidth: "bytes" as published, "rate", or "none"
    contention_in_optimum: bool = (
        True  # whether T_decode's optimum sees prefill's traffic, as the bound's other side does
    )
    infeasible: str = (
        "clamp"  # no split keeps the slack: take the target's "clamp"ed smallest share, or "keep" the split
    )
    idle_peer_full: bool = True  # a lane whose peer has nothing to do gets the whole device
    barrier: bool = False  # switch at a barrier of both lanes (Fig. 8a) instead of at each lane's next iteration
    split_percent: float = 50.0  # prefill's share at the start, and for good in the ablations without control
    literal_listing: bool = False  # Algorithm 2 as printed, which never starts a prompt above the token budget
    victims: str = "newest"  # whom decode pre-empts: the "newest" sequence, or unfinished prompts first

    # The reactive control, which is not the paper's: feedback from service levels, after semi-PD and Bullet.
    ttft_slo_s: float = 5.0
    tbt_slo_s: float = 0.1
    window_s: float = 5.0
    step_points: float = 10.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            _require(getattr(self, name) > 1, name, getattr(self, name), "it must be above 1")
        _require(0 <= self.kv_switch <= 1, "kv_switch", self.kv_switch, "give a share from 0 to 1")
        for name in ("gamma_tokens_per_s", "delta_points"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "it must be at least 0")
        for name in ("period", "tile_rows"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "it must be at least 1")
        _require(0 < self.split_percent < 100, "split_percent", self.split_percent, "give a percentage in (0, 100)")
        for name in ("ttft_slo_s", "tbt_slo_s", "window_s", "step_points"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "it must be positive")
        for name, known in _CHOICES.items():
            _require(getattr(self, name) in known, name, repr(getattr(self, name)), f"use one of {', '.join(known)}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Return settings from keyword options; ValueError names an unknown one."""
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"Settings: unknown {', '.join(unknown)}; known: {', '.join(known)}")
        return cls(**values)


def _require(holds: bool, name: str, value: object, hint: str) -> None:
    if not holds:
        raise ValueError(f"Settings: {name} is {value}; {hint}")
