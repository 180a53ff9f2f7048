"""One physics for two simulators: the serving core's device, priced by Seesaw's rates of a node.

The core's device model knows efficiencies, an overhead per iteration and how a share of the multiprocessors slows
things down; Seesaw's node also knows elementwise kernels, attention's own rate and all-reduces between the node's GPUs.
`NodeDevice` takes the first from the core and all rates from the node, so that a policy of Nexus and a plan of Seesaw
differ in what they do and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from paperlab.hardware import LinkSpec
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.serving.constants import DeviceConstants, constants
from paperlab.serving.cost import ModelCost
from paperlab.serving.deployment import Deployment
from paperlab.serving.device_model import DeviceModel, Load
from paperlab.serving.policy import Limits
from paperlab.serving.work import StepShape
from paperlab.transformer import ModelShape, element_bytes, preset

CURVES_OF = "L20"  # how a share of the multiprocessors slows an operator down; no other device has such curves


def constants_of(on: Node, model: ModelShape) -> DeviceConstants:
    """Return the core's constants of a node's device: its rates as fractions of the peaks, its overheads as one."""
    curves = constants(CURVES_OF)
    return DeviceConstants(
        compute_efficiency=on.linear_flops_per_s / on.device.peak(on.dtype),
        memory_efficiency=on.memory_Bps / on.device.bandwidth_Bps,
        step_overhead_s=on.step_overhead_s + model.layers * on.layer_overhead_s,
        compute_curves=curves.compute_curves,
        memory_curve=curves.memory_curve,
        source=f"rates of Seesaw's {on.name}, curves of the {CURVES_OF}",
    )


def peer_link(on: Node, tp: int) -> LinkSpec:
    """Return the link that carries `tp` devices' all-reduces in the core's terms: a ring's bus rate and latency."""
    bus = on.all_reduce.algorithm_Bps(tp) * 2 * (tp - 1) / tp
    return LinkSpec(
        name=f"{on.name}, {tp} GPUs", source="Seesaw's node", confidence="recalled", bandwidth_Bps=bus,
        latency_s=on.all_reduce.call_s(tp),
    )  # fmt: skip


class NodeDevice(DeviceModel):
    """The core's device, alone or with lanes side by side, with every term that Seesaw's prices have."""

    def __init__(self, cost: ModelCost, on: Node, link_contention: float = 1.0) -> None:
        """`link_contention` 1: an all-reduce that meets the other lane's takes as long again; 0: they never meet."""
        super().__init__(
            cost, on.device, constants_of(on, cost.shape), peer_link(on, cost.tp) if cost.tp > 1 else None
        )  # fmt: skip
        shape, size = cost.shape, element_bytes(on.dtype)
        self.link_contention = link_contention
        self._attention_flops_per_s = on.attention_flops_per_s
        self._qo_bytes = size * shape.layers * shape.q_width / cost.tp  # of a prompt's token
        passes = on.hidden_passes * shape.hidden + on.ffn_passes * shape.ffn / cost.tp
        self._elementwise_bytes = size * shape.layers * passes  # of a token

    def load(self, step: StepShape) -> Load:
        """Price one iteration; elementwise kernels are traffic beside the MLP's."""
        base, parts = super().load(step), []
        slower = self._flops_per_s / self._attention_flops_per_s
        for operator, compute_s, memory_s in base.parts:
            if operator.endswith("attention"):
                compute_s *= slower
            if operator == "prefill_attention":
                memory_s += self._qo_bytes * step.prefill_tokens / self._bandwidth_Bps
            parts.append((operator, compute_s, memory_s))
        parts.append(("ffn", 0.0, self._elementwise_bytes * step.tokens / self._bandwidth_Bps))
        return base._replace(parts=tuple(parts), memory_s=sum(part[2] for part in parts))

    def durations(self, running: list[tuple[Load, float]]) -> list[float]:
        """Return how long iterations take side by side: they share the link as well as memory.

        A lane that communicates finds the others' all-reduces on the link as often as those lanes communicate.
        """
        seconds = super().durations(running)
        if len(running) == 1 or self.cost.tp == 1 or not self.link_contention:
            return seconds
        network = [load.fixed_s - self.constants.step_overhead_s for load, _ in running]
        busy = [network_s / total_s for network_s, total_s in zip(network, seconds, strict=True)]
        return [
            total_s + self.link_contention * network_s * (sum(busy) - mine)
            for total_s, network_s, mine in zip(seconds, network, busy, strict=True)
        ]


@dataclass(frozen=True)
class NodeDeployment(Deployment):
    """A model on `tp` GPUs of a Seesaw node: the core's deployment with the node's physics and memory."""

    on: Node | None = None
    link_contention: float = 1.0

    @classmethod
    def of(cls, model: ModelShape, on: Node, tp: int, limits: Limits, link_contention: float = 1.0) -> NodeDeployment:
        """Return the deployment; ValueError where the weights do not fit."""
        tokens = kv_tokens(model, on, Layout(tp=tp))
        if tokens < 16:
            raise ValueError(f"{model.name} does not fit on {tp} x {on.name}")
        return cls(
            model, on.device, constants_of(on, model), tp=tp, dtype=on.dtype, limits=limits, kv_tokens=tokens, on=on,
            link_contention=link_contention,
        )  # fmt: skip

    @cached_property
    def device_model(self) -> DeviceModel:
        """The physics of the node."""
        assert self.on is not None
        return NodeDevice(self.cost, self.on, self.link_contention)


def iterations() -> dict[str, StepShape]:
    """Return iterations to compare prices on: one prompt, several, decode at several batches and contexts."""
    found = {
        f"prefill {count} x {n}": StepShape(count * n, 0, count * n * (n + 1) // 2, logits=count)
        for count, n in ((1, 512), (1, 2048), (4, 1024), (1, 8192))
    }
    for batch, context in ((1, 1024), (16, 1024), (64, 2048), (256, 512)):
        found[f"decode {batch} x {context}"] = StepShape(0, 0, 0, batch, batch * context, batch)
    return found


def price_table(models: Sequence[str], devices: Sequence[str], tps: Sequence[int]) -> pd.DataFrame:
    """Return seconds of one iteration by Seesaw's prices and by the core, with the node's terms and by constants alone.

    Columns: device, model, tp, iteration, seesaw_s, core_s, difference (relative), constants_s, constants_difference.
    """
    rows = []
    for device in devices:
        on = node(device)
        for name in models:
            model = preset(name)
            for tp in tps:
                prices, cost = Prices(model, Layout(tp=tp), on), ModelCost(model, on.dtype, tp)
                known, plain = NodeDevice(cost, on), _constants_alone(cost, on)
                for label, step in iterations().items():
                    theirs = prices.compute_s(step)[0]
                    ours, coarse = (item.seconds(item.load(step)) for item in (known, plain))
                    row = (device, name, tp, label, theirs, ours, ours / theirs - 1, coarse, coarse / theirs - 1)
                    rows.append(row)
    columns = ["device", "model", "tp", "iteration", "seesaw_s", "core_s", "difference", "constants_s"]
    return pd.DataFrame(rows, columns=[*columns, "constants_difference"])


def _constants_alone(cost: ModelCost, on: Node) -> DeviceModel:
    link = peer_link(on, cost.tp) if cost.tp > 1 else None
    return DeviceModel(cost, on.device, constants_of(on, cost.shape), link)
