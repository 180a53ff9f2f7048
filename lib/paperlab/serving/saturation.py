"""How much of a device's full rate a share of its multiprocessors reaches (Nexus §4.1: R_sat and λ).

The paper describes two regimes in words; its formula could not be read. `slope` is the plainest function with them:
proportional up to a knee, then a gentler slope. `exponential` approaches the full rate smoothly and serves as the
alternative in the sensitivity study.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Saturation:
    """A curve from share (0 to 1) to rate (0 to 1, with rate(1) = 1).

    `slope`: proportional to the share up to `knee` (R_sat), then with `decay` (λ) times that slope: 1 never saturates,
    0 is flat above the knee. `exponential`: 1 - exp(-share / decay), scaled; `knee` is not used.
    """

    knee: float = 1.0
    decay: float = 1.0
    kind: str = "slope"

    def __post_init__(self) -> None:
        if self.kind not in ("slope", "exponential"):
            raise ValueError(f"Saturation: kind is {self.kind!r}; use slope or exponential")
        if not 0 < self.knee <= 1:
            raise ValueError(f"Saturation: knee is {self.knee}; it must be above 0 and at most 1")
        low = 0 if self.kind == "slope" else 1e-3
        if not low <= self.decay <= (1 if self.kind == "slope" else 10):
            raise ValueError(f"Saturation: decay is {self.decay}; out of range for {self.kind}")

    def rate(self, share: float) -> float:
        """Return the share of the full rate that `share` of the multiprocessors reaches."""
        return self._effective(share) / self._effective(1.0)

    def _effective(self, share: float) -> float:
        if self.kind == "exponential":
            return 1 - math.exp(-share / self.decay)
        return share if share <= self.knee else self.knee + self.decay * (share - self.knee)
