"""What a GPU of the paper's nodes reaches, and the links around it: the rates that cost model and simulator use.

Peaks are those of `data/hardware` (the paper's Table 1 agrees but for units); how much of them is reached comes from
`calibration`. One set of constants per device, used everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from paperlab.hardware import DeviceSpec, device, link
from paperlab.seesaw import calibration
from paperlab.seesaw.calibration import Fit

GIB = 2**30
HOST_LINK = dict.fromkeys(("A10", "A10G", "L4"), "pcie4-x8")  # per GPU (§6.1); other nodes: the card's own
HOST_KV_BYTES_PER_GPU = 80 * GIB  # host memory per GPU (§6.1); whether the weights' copy is inside is not said
GROUPS = (2, 4, 8)
# No profile of these is public; the A40 is the A10's larger sibling, the L4 one generation younger.
PROFILE_OF = {"A10": "a40", "A10G": "a40", "L4": "a40"}


@dataclass(frozen=True)
class AllReduce:
    """Time of one all-reduce by group size: a latency, and a ring that moves 2·(n - 1)/n of the bytes at a bus rate."""

    bus_Bps: Mapping[int, float] = field(hash=False)
    latency_s: Mapping[int, float] = field(hash=False)

    def __post_init__(self) -> None:
        if not self.bus_Bps or min(self.bus_Bps) < 2 or min(self.bus_Bps.values()) <= 0:
            raise ValueError(f"AllReduce: bus_Bps is {dict(self.bus_Bps)}; give positive rates by group size from 2")
        if set(self.latency_s) != set(self.bus_Bps) or min(self.latency_s.values()) < 0:
            raise ValueError(f"AllReduce: latency_s is {dict(self.latency_s)}; give one per group size, not negative")

    def algorithm_Bps(self, gpus: int) -> float:
        """Return B_ar(TP), tensor bytes over time for large tensors; infinite for one GPU."""
        return math.inf if gpus == 1 else self._of(self.bus_Bps, gpus) * gpus / (2 * (gpus - 1))

    def call_s(self, gpus: int) -> float:
        """Return the latency of one call."""
        return 0.0 if gpus == 1 else self._of(self.latency_s, gpus)

    def scaled(self, factor: float) -> AllReduce:
        """Return the same link `factor` times as fast: bandwidth and latency, as Fig. 14 rescales recorded calls."""
        bus = {gpus: rate * factor for gpus, rate in self.bus_Bps.items()}
        return AllReduce(bus, {gpus: seconds / factor for gpus, seconds in self.latency_s.items()})

    @staticmethod
    def _of(table: Mapping[int, float], gpus: int) -> float:
        if gpus not in table:
            raise ValueError(f"no all-reduce rate for {gpus} GPUs; known: {sorted(table)}")
        return table[gpus]


@dataclass(frozen=True)
class Node:
    """One GPU's reachable rates and its links, in a node of equal GPUs.

    `hidden_passes` and `ffn_passes` are the times that a layer's elementwise kernels pass over a token's hidden state
    and MLP width; the paper's equations have none, and `ideal` sets them and all overheads to zero.
    """

    name: str
    device: DeviceSpec
    linear_flops_per_s: float
    attention_flops_per_s: float
    memory_Bps: float
    all_reduce: AllReduce
    peer_Bps: float
    host_Bps: float
    hidden_passes: float = 0.0
    ffn_passes: float = 0.0
    layer_overhead_s: float = 0.0
    step_overhead_s: float = 0.0
    dtype: str = "fp16"
    memory_utilization: float = 0.9
    workspace_bytes: float = GIB
    host_kv_bytes: float = HOST_KV_BYTES_PER_GPU  # per GPU

    def __post_init__(self) -> None:
        for name in ("linear_flops_per_s", "attention_flops_per_s", "memory_Bps", "peer_Bps", "host_Bps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Node {self.name}: {name} is {getattr(self, name)}; it must be positive")
        for name in ("hidden_passes", "ffn_passes", "layer_overhead_s", "step_overhead_s", "host_kv_bytes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Node {self.name}: {name} is {getattr(self, name)}; it must not be negative")

    @property
    def usable_bytes(self) -> float:
        """Device memory for weights, keys and values."""
        return self.device.memory_bytes * self.memory_utilization - self.workspace_bytes

    @property
    def ideal(self) -> Node:
        """The same rates without overheads, elementwise kernels and latencies: the terms of Eq. 1 alone."""
        quiet = AllReduce(self.all_reduce.bus_Bps, dict.fromkeys(self.all_reduce.latency_s, 0.0))
        return replace(
            self, hidden_passes=0, ffn_passes=0, layer_overhead_s=0, step_overhead_s=0, all_reduce=quiet,
            peer_Bps=math.inf,
        )  # fmt: skip


def node(name: str | Node, interconnect: str | None = None) -> Node:
    """Return the calibrated node of a device's name, such as `a10`, `l4` or `a100-sxm-40gb`.

    Args:
        name: a device of `data/hardware`, or a node, which is returned.
        interconnect: `pcie` or `nvlink`; by default NVLink where the device has it. With `pcie`, GPUs reach each other
            through the host bridge: the paper's A100 comparison (Fig. 11).
    """
    if isinstance(name, Node):
        return name
    return _node(device(name).name, interconnect)


@cache
def _node(name: str, interconnect: str | None) -> Node:
    spec = device(name)
    kind = interconnect or ("nvlink" if spec.peer_link else "pcie")
    if kind not in ("pcie", "nvlink") or (kind == "nvlink" and not spec.peer_link):
        raise ValueError(f"{name}: interconnect is {interconnect!r}; use pcie, or nvlink where the device has it")
    fit = calibration.layer_fit(PROFILE_OF.get(spec.name, "a100"))
    return _reached(f"{name} over {'NVLink' if kind == 'nvlink' else 'PCIe'}", spec, fit, kind)


def _reached(label: str, spec: DeviceSpec, fit: Fit, kind: str) -> Node:
    host_Bps = link(HOST_LINK.get(spec.name, spec.host_link)).bandwidth_Bps * calibration.pcie_share()
    if kind == "nvlink":
        ratio = link(str(spec.peer_link)).bandwidth_Bps / link("nvlink3-a100").bandwidth_Bps
        measured = calibration.measured_all_reduce("a100-dgx")
        bus, latency = {n: rate * ratio for n, (rate, _) in measured.items()}, {n: s for n, (_, s) in measured.items()}
        peer_Bps = link(str(spec.peer_link)).bandwidth_Bps
    else:
        bus = dict.fromkeys(GROUPS, host_Bps)
        # A ring of n passes 2·(n - 1) messages in a row.
        latency = {n: 2 * (n - 1) * calibration.PCIE_HOP_S for n in GROUPS}
        peer_Bps = host_Bps
    return Node(
        label,
        spec,
        linear_flops_per_s=spec.peak("fp16") * fit.compute_efficiency,
        attention_flops_per_s=spec.peak("fp16") * fit.compute_efficiency * calibration.ATTENTION_SHARE,
        memory_Bps=spec.bandwidth_Bps * fit.memory_efficiency,
        all_reduce=AllReduce(bus, latency),
        peer_Bps=peer_Bps,
        host_Bps=host_Bps,
        hidden_passes=fit.hidden_passes,
        ffn_passes=fit.ffn_passes,
        layer_overhead_s=fit.linear_overhead_s + fit.elementwise_overhead_s,
        step_overhead_s=calibration.STEP_OVERHEAD_S,
    )
