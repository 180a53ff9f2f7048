"""The controller's forecast of both phases' latencies, operator by operator (§4.1.1).

Each operator takes the longer of its arithmetic and its memory traffic, and a phase the sum of its operators:
T(r) = Σ max(T_comp(r), T_mem). Arithmetic speeds up with the share r of the multiprocessors along a saturation curve;
memory runs at peak bandwidth, save decode's attention, which shares it with prefill.

This is what Nexus believes about a device. The simulator has its own physics (`serving.device_model`), which nothing
here reads: peaks come from the data sheet, curves from a fit to measurements (`belief`, `saturation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from paperlab.hardware import DeviceSpec
from paperlab.nexus.belief import PHASE_OPERATORS, Belief, is_padded
from paperlab.serving.cost import ModelCost
from paperlab.serving.work import StepShape

ATTENTION = ("prefill_attention", "decode_attention")


class Operator(NamedTuple):
    """One operator of a batch over all layers."""

    name: str
    compute_s: float  # of its arithmetic on the whole device
    memory_s: float  # of its traffic at the bandwidth the belief grants
    moved_bytes: float


class CostModel:
    """Latencies of prefill and decode iterations of one model on one device."""

    def __init__(self, cost: ModelCost, device: DeviceSpec, belief: Belief, contention: str = "bytes") -> None:
        """`contention` is `bytes` (as published), `rate` (by demands per second) or `none`."""
        if contention not in ("bytes", "rate", "none"):
            raise ValueError(f"contention is {contention!r}; use bytes, rate or none")
        self.cost, self.belief, self.contention = cost, belief, contention
        self._flops_per_s = device.peak(cost.arithmetic)
        self.bandwidth_Bps = device.bandwidth_Bps * belief.memory_efficiency
        # A prefill batch is looked at once per decode iteration beside it.
        self._rates = lru_cache(maxsize=4096)(self._rates_at)
        self._priced = lru_cache(maxsize=256)(self._price)
        self._overlap = lru_cache(maxsize=4096)(self._overlap_at)

    def operators(self, step: StepShape) -> tuple[Operator, ...]:
        """Price the operators of a batch of one phase; ValueError for a mixed batch, which Nexus never forms."""
        return self._priced(step)

    def overlap(self, prefill: StepShape, share: float) -> float:
        """Return P_attn, the part that attention takes of T_prefill at `share`."""
        return self._overlap(prefill, share)

    def _price(self, step: StepShape) -> tuple[Operator, ...]:
        if step.kind == "mixed":
            raise ValueError("step mixes prefill and decode; the cost model prices one phase at a time")
        found, padding = [], self.belief.padded(step.decode_tokens) if step.decode_tokens else 1.0
        for name, flops, moved in self.cost.demands(step):
            if is_padded(step.kind, name):
                flops *= padding
            peak = self._flops_per_s * self.belief.curves[step.kind, name].efficiency
            found.append(Operator(name, flops / peak, moved / self.bandwidth_Bps, moved))
        return tuple(found)

    def rates(self, phase: str, share: float) -> dict[str, float]:
        """Return by operator the speed of arithmetic at `share` (0 to 1) relative to the whole device."""
        return self._rates(phase, share)

    def times(self, step: StepShape, share: float, bandwidth: float = 1.0) -> dict[str, float]:
        """Return seconds by operator for `share` of the device; attention gets the fraction `bandwidth` of it.

        A fixed cost stands under `fixed`. The values add up to the iteration's latency.
        """
        return _times(self.operators(step), self.rates(step.kind, share), bandwidth) | {"fixed": self.belief.overhead_s}

    def co_run(self, prefill: StepShape, decode: StepShape) -> CoRun:
        """Return both phases' forecasts while they run side by side."""
        return CoRun(self, prefill, decode)

    def _overlap_at(self, prefill: StepShape, share: float) -> float:
        times = self.times(prefill, share)
        return times["prefill_attention"] / sum(times.values())

    def _rates_at(self, phase: str, share: float) -> dict[str, float]:
        return {name: self.belief.curves[phase, name].saturation.rate(share) for name in PHASE_OPERATORS[phase]}


class CoRun:
    """One prefill and one decode batch side by side: latencies as functions of the split (§4.1.1).

    Shares are fractions of the multiprocessors in (0, 1]. Prefill has peak bandwidth, so there is no circle.
    """

    def __init__(self, model: CostModel, prefill: StepShape, decode: StepShape) -> None:
        if prefill.kind != "prefill" or decode.kind != "decode":
            raise ValueError(f"co_run needs a prefill and a decode batch, not {prefill.kind} and {decode.kind}")
        self._model, self._prefill_step = model, prefill
        self._prefill, self._decode = model.operators(prefill), model.operators(decode)
        self._overhead_s = model.belief.overhead_s
        self._decode_bytes = sum(item.moved_bytes for item in self._decode if item.name in ATTENTION)
        self._attention_bytes = sum(item.moved_bytes for item in self._prefill if item.name in ATTENTION)
        self._dense_bytes = sum(item.moved_bytes for item in self._prefill if item.name not in ATTENTION)

    def prefill_s(self, share: float) -> float:
        """Return T_prefill at `share`."""
        return _total(self._prefill, self._model.rates("prefill", share), 1.0) + self._overhead_s

    def decode_s(self, share: float, prefill_share: float | None = None) -> float:
        """Return T_decode at `share` while prefill runs at `prefill_share` (None: with nothing beside it)."""
        bandwidth = 1.0 if prefill_share is None else self.decode_bandwidth(prefill_share)
        return _total(self._decode, self._model.rates("decode", share), bandwidth) + self._overhead_s

    def overlap(self, prefill_share: float) -> float:
        """Return P_attn, the chance that a decode access meets prefill's attention: its part of T_prefill."""
        return self._model.overlap(self._prefill_step, prefill_share)

    def decode_bandwidth(self, prefill_share: float) -> float:
        """Return B_decode / B, the fraction of the bandwidth left to decode's attention.

        `bytes`: P_attn·m_d/(m_d + m_p1) + P_dense·m_d/(m_d + m_p2), with each iteration's bytes of decode's attention,
        prefill's attention and prefill's dense operators. `rate`: the same with bytes per second in place of
        bytes, decode drawing all it can; an iteration of prefill is about ten times as long as one of decode, which the
        published form leaves out.
        """
        if self._model.contention == "none":
            return 1.0
        overlap = self.overlap(prefill_share)
        mine, attention, dense = float(self._decode_bytes), self._attention_bytes, self._dense_bytes
        if self._model.contention == "rate":
            total_s = self.prefill_s(prefill_share)
            mine = self._model.bandwidth_Bps
            attention = attention / (overlap * total_s) if overlap else 0.0
            dense = dense / ((1 - overlap) * total_s) if overlap < 1 else 0.0
        return overlap * mine / (mine + attention) + (1 - overlap) * mine / (mine + dense)


def _times(operators: tuple[Operator, ...], rates: Mapping[str, float], bandwidth: float) -> dict[str, float]:
    return {
        name: max(compute_s / rates[name], memory_s / bandwidth if name in ATTENTION else memory_s)
        for name, compute_s, memory_s, _ in operators
    }


def _total(operators: tuple[Operator, ...], rates: Mapping[str, float], bandwidth: float) -> float:
    total = 0.0
    for name, compute_s, memory_s, _ in operators:
        compute_s /= rates[name]
        if name in ATTENTION:
            memory_s /= bandwidth
        total += compute_s if compute_s > memory_s else memory_s
    return total
