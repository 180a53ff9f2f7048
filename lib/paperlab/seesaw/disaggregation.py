"""Why not give prefill and decode their own GPUs: the planner behind §3.2 and Fig. 4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from paperlab.seesaw.estimate import batch_s
from paperlab.seesaw.hardware import Node
from paperlab.seesaw.layout import Layout, static_layouts
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.seesaw.simulation import PREFILL_TOKENS
from paperlab.serving.work import StepShape
from paperlab.transformer import ModelShape, weight_bytes


class Rate(NamedTuple):
    """Requests per second of one phase on some GPUs, in the best layout."""

    gpus: int
    layout: Layout
    requests_per_s: float


class Split(NamedTuple):
    """One way to divide the node; `requests_per_s` is the slower side's, `mismatch` the faster over the slower."""

    prefill: Rate
    decode: Rate

    @property
    def requests_per_s(self) -> float:
        """What gets through both sides."""
        return min(self.prefill.requests_per_s, self.decode.requests_per_s)

    @property
    def mismatch(self) -> float:
        """How many times one side outruns the other."""
        rates = self.prefill.requests_per_s, self.decode.requests_per_s
        return max(rates) / min(rates)


def least_gpus(model: ModelShape, node: Node) -> int:
    """Return the smallest power of two of GPUs whose nominal memory holds the weights (footnote 2)."""
    gpus = 1
    while gpus * node.device.memory_bytes < weight_bytes(model, node.dtype):
        gpus *= 2
    return gpus


def prefill_rate(model: ModelShape, node: Node, gpus: int, prompt: int) -> Rate:
    """Return the best prefill throughput of prompts of `prompt` tokens; ValueError where the weights fit nowhere."""

    def rate(layout: Layout) -> float:
        return layout.dp / batch_s(Prices(model, layout, node), prompt, PREFILL_TOKENS)

    return _best(model, node, gpus, rate)


def decode_rate(model: ModelShape, node: Node, gpus: int, prompt: int, output: int) -> Rate:
    """Return the best decode throughput with as many sequences as memory holds at their mean length."""

    def rate(layout: Layout) -> float:
        return layout.dp / decode_seconds(model, node, layout.replica, prompt, output)

    return _best(model, node, gpus, rate)


def decode_seconds(model: ModelShape, node: Node, layout: Layout, prompt: int, output: int) -> float:
    """Return a replica's seconds per request of decoding with its memory full; infinite where no sequence fits."""
    prices, length = Prices(model, layout, node), prompt + output // 2
    batch = kv_tokens(model, node, layout) // length
    if batch < 1:
        return float("inf")
    group = -(-batch // layout.pp)
    seconds = prices.compute_s(StepShape(0, 0, 0, group, group * length, group))
    return max(max(seconds) * layout.pp, sum(seconds)) * output / batch


def splits(model: ModelShape, node: Node, gpus: int, prompt: int, output: int) -> Iterator[Split]:
    """Yield every division of `gpus` whose sides both hold the weights."""
    for mine in range(1, gpus):
        try:
            yield Split(prefill_rate(model, node, mine, prompt), decode_rate(model, node, gpus - mine, prompt, output))
        except ValueError:
            continue


def multiplexed_rate(model: ModelShape, node: Node, gpus: int, prompt: int, output: int) -> float:
    """Return requests per second with all GPUs in one phase at a time, each in its best layout."""
    prefill, decode = prefill_rate(model, node, gpus, prompt), decode_rate(model, node, gpus, prompt, output)
    return 1 / (1 / prefill.requests_per_s + 1 / decode.requests_per_s)


def _best(model: ModelShape, node: Node, gpus: int, rate: Callable[[Layout], float]) -> Rate:
    fitting = [layout for layout in static_layouts(model, gpus) if kv_tokens(model, node, layout) > 0]
    found = [Rate(gpus, layout, rate(layout)) for layout in fitting]
    if not found or max(item.requests_per_s for item in found) == 0:
        raise ValueError(f"{model.name} does not fit on {gpus} x {node.name}")
    return max(found, key=lambda item: item.requests_per_s)
