"""How long iterations take on a device, alone or side by side: the simulator's physics.

An operator takes the longer of its arithmetic and its memory traffic (roofline); a share of the multiprocessors slows
both along the saturation curves. Lanes on one device share its bandwidth: as long as their average
demands fit, nothing changes; beyond that each gets bandwidth in proportion to its demand. Shares that add up to more
than the whole device (a layout switch that not all lanes have followed yet) are scaled down to it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from paperlab.hardware import DeviceSpec, LinkSpec
from paperlab.serving.constants import DeviceConstants
from paperlab.serving.cost import OPERATORS, ModelCost
from paperlab.serving.work import StepShape


class Load(NamedTuple):
    """One iteration, priced on the whole device with nothing beside it."""

    parts: tuple[tuple[str, float, float], ...]  # operator, seconds of arithmetic, seconds of memory traffic
    memory_s: float  # sum of the traffic
    fixed_s: float  # overhead and communication, untouched by shares
    penalty: float


class DeviceModel:
    """Durations of concurrent iterations of one model on one device, or on each device of a tensor-parallel group."""

    def __init__(
        self, cost: ModelCost, device: DeviceSpec, constants: DeviceConstants, peer: LinkSpec | None = None
    ) -> None:
        """`peer` carries the all-reduces of a tensor-parallel model, and is needed where `cost.tp` is above 1."""
        if cost.tp > 1 and peer is None:
            raise ValueError(f"tp is {cost.tp}: give the link between the devices")
        self.cost, self.constants, self.peer = cost, constants, peer
        self._flops_per_s = device.peak(cost.arithmetic) * constants.compute_efficiency
        self._bandwidth_Bps = device.bandwidth_Bps * constants.memory_efficiency
        self._rates = lru_cache(maxsize=4096)(self._rates_at)

    def load(self, step: StepShape) -> Load:
        """Price one iteration."""
        parts = []
        for operator, flops, moved in self.cost.demands(step):
            if operator == "prefill_attention":
                moved *= self.constants.attention_sweeps
            elif operator == "decode_attention":
                moved *= self.constants.decode_sweeps
            parts.append((operator, flops / self._flops_per_s, moved / self._bandwidth_Bps))
        penalty = self.constants.mixed_penalty if step.prefill_tokens and step.decode_tokens else 1.0
        overhead_s = self.constants.step_overhead_s + self.constants.token_overhead_s * step.logits
        fixed_s = overhead_s + self._all_reduce_s(step)
        return Load(tuple(parts), sum(part[2] for part in parts), fixed_s, penalty)

    def seconds(self, load: Load, share: float = 1.0, bandwidth: float = 1.0) -> float:
        """Return how long `load` takes with a share of the multiprocessors and at most a share of the bandwidth."""
        rates, reachable = self._rates(share)
        reachable = min(reachable, bandwidth)
        total = 0.0
        for operator, compute_s, memory_s in load.parts:
            compute_s /= rates[operator]
            memory_s /= reachable
            total += compute_s if compute_s > memory_s else memory_s
        return total * load.penalty + load.fixed_s

    def parts(self, load: Load, share: float = 1.0, bandwidth: float = 1.0) -> dict[str, float]:
        """Return the seconds of each operator; they and the fixed costs add up to `seconds` without a penalty."""
        rates, reachable = self._rates(share)
        reachable = min(reachable, bandwidth)
        return {name: max(c / rates[name], m / reachable) for name, c, m in load.parts} | {"fixed": load.fixed_s}

    def durations(self, running: list[tuple[Load, float]]) -> list[float]:
        """Return how long each of the (load, share) pairs takes while all of them run side by side."""
        if len(running) == 1:
            return [self.seconds(running[0][0], min(1.0, running[0][1]))]
        total = sum(share for _, share in running)
        shares = [share / max(1.0, total) for _, share in running]
        alone = [self.seconds(load, share) for (load, _), share in zip(running, shares, strict=True)]
        demand = [load.memory_s / seconds for (load, _), seconds in zip(running, alone, strict=True)]
        wanted = sum(demand)
        corun = self.constants.corun_penalty
        if wanted <= 1:
            return [seconds * corun for seconds in alone]
        return [
            self.seconds(load, share, mine / wanted) * corun
            for (load, _), share, mine in zip(running, shares, demand, strict=True)
        ]

    def _rates_at(self, share: float) -> tuple[dict[str, float], float]:
        curves = self.constants
        rates = {name: curves.compute_curve(name).rate(share) for name in OPERATORS}
        return rates, curves.memory_curve.rate(share)

    def _all_reduce_s(self, step: StepShape) -> float:
        if self.peer is None or self.cost.tp == 1:
            return 0.0
        tp, calls = self.cost.tp, 2 * self.cost.shape.layers
        moved = 2 * (tp - 1) / tp * self.cost.communicated_bytes(step)
        return moved / self.peer.bandwidth_Bps + calls * self.peer.latency_s
