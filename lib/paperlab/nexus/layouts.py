"""The splits that green contexts can make: the paper's 1 % grid is finer than any of them (§4.2)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from paperlab.hardware import DeviceSpec, sm_granularity


class Layout(NamedTuple):
    """One split of a device's multiprocessors; decode has what prefill leaves."""

    prefill_sms: int
    sms: int

    @property
    def percent(self) -> float:
        """R_p, prefill's share in percent."""
        return 100 * self.prefill_sms / self.sms

    def share(self, lane: str) -> float:
        """Return the share of `prefill` or `decode`, 0 to 1."""
        count = self.prefill_sms if lane == "prefill" else self.sms - self.prefill_sms
        return count / self.sms


def layouts(device: DeviceSpec) -> tuple[Layout, ...]:
    """Return all layouts of `device`, by prefill's share: one group for prefill, the whole rest for decode.

    Raises:
        ValueError: the device has too few multiprocessors for two groups.
    """
    smallest, step = sm_granularity(device.compute_capability)
    found = tuple(Layout(count, device.sm_count) for count in range(smallest, device.sm_count - smallest + 1, step))
    if not found:
        raise ValueError(f"{device.name}: {device.sm_count} multiprocessors do not make two groups of {smallest}")
    return found


def nearest(known: Sequence[Layout], percent: float) -> Layout:
    """Return the layout whose R_p is closest to `percent`."""
    return min(known, key=lambda layout: abs(layout.percent - percent))


def at_most(known: Sequence[Layout], target: str, percent: float) -> Layout:
    """Return the layout with the largest share of `target` that is not above `percent`, or else its smallest.

    Rounding down leaves the other phase at least what the search granted it.
    """
    ordered = known if target == "prefill" else known[::-1]
    fitting = bisect_right(ordered, percent + 1e-9, key=lambda layout: 100 * layout.share(target))
    return ordered[max(0, fitting - 1)]


def moves_enough(proposed: Layout, current: Layout, delta_points: float) -> bool:
    """Return whether two different layouts are at least δ apart (the hysteresis buffer of §4.2)."""
    return proposed != current and abs(proposed.percent - current.percent) >= delta_points - 1e-9
