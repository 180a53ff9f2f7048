"""Clusters: devices, capacities, links, interference and operator latencies, read from `data/mist/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import yaml

from paperlab.hardware import device
from paperlab.lab.paths import data_dir
from paperlab.mist.cost.communication import Links
from paperlab.mist.cost.interference import Interference
from paperlab.mist.cost.operators import OperatorModel, Rate, rates_of, read_rows
from paperlab.mist.plan import ClusterSize

GIB = 2**30
_KEYS = {
    "device", "capacity_GiB", "collectives", "host_to_device", "device_to_host", "interference", "operators",
}  # fmt: skip
# Backward over forward work where nothing was measured: two products for one, five of attention's for two, and
# about twice the traffic elsewhere.
_ASSUMED_RATIO = {"product": 2.0, "attention": 2.5, "memory": 2.0}


@dataclass(frozen=True)
class Cluster:
    """Equal nodes of equal devices, with everything that the cost model needs to know of them.

    `capacity_bytes` is the memory of one device as the artifact states it; of it `usable` is planned with.
    """

    name: str
    nodes: int
    gpus_per_node: int
    capacity_bytes: float
    links: Links
    interference: Interference
    operators: OperatorModel = field(repr=False)
    usable: float = 0.88

    def __post_init__(self) -> None:
        ClusterSize(self.name, self.nodes, self.gpus_per_node)
        if not self.capacity_bytes > 0:
            raise ValueError(f"capacity_bytes is {self.capacity_bytes}; it must be positive")
        if not 0 < self.usable <= 1:
            raise ValueError(f"usable is {self.usable}; write a fraction up to 1")

    @property
    def gpus(self) -> int:
        """All devices."""
        return self.nodes * self.gpus_per_node

    @property
    def size(self) -> ClusterSize:
        """What a plan stores of the cluster."""
        return ClusterSize(self.name, self.nodes, self.gpus_per_node)

    @property
    def budget_bytes(self) -> float:
        """Device memory that a plan may fill."""
        return self.usable * self.capacity_bytes

    def with_capacity(self, capacity_bytes: float) -> Cluster:
        """Return the same cluster with another memory size per device."""
        return replace(self, capacity_bytes=capacity_bytes)


def cluster(name: str, nodes: int = 1, gpus_per_node: int = 1) -> Cluster:
    """Return the cluster `name` of `data/mist/clusters.yaml` in the given size.

    Raises:
        ValueError: an unknown name, or a malformed file; the message says which entry.
    """
    entries = _read("clusters.yaml")
    if name not in entries:
        raise ValueError(f"unknown cluster {name!r}; known: {', '.join(sorted(entries))}")
    entry = entries[name]
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ValueError(f"clusters.yaml: {name}: keys must be {', '.join(sorted(_KEYS))}")
    return Cluster(
        name=name,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        capacity_bytes=entry["capacity_GiB"] * GIB,
        links=_links(entry),
        interference=interference(entry["interference"]),
        operators=_operators(entry["device"], entry["operators"]),
    )


def interference(name: str) -> Interference:
    """Return a set of slowdown factors of `data/mist/interference.yaml`."""
    sets = _read("interference.yaml")
    if name not in sets:
        raise ValueError(f"unknown interference set {name!r}; known: {', '.join(sorted(sets))}")
    return Interference.of(sets[name])


def _links(entry: Mapping[str, Any]) -> Links:
    def pair(values: Any) -> tuple[float, float]:
        bandwidth_GiBps, latency_ms = values
        return bandwidth_GiBps * GIB, latency_ms / 1e3

    groups = {tuple(map(int, key.split("x"))): pair(values) for key, values in entry["collectives"].items()}
    return Links(groups, pair(entry["host_to_device"]), pair(entry["device_to_host"]))  # type: ignore[arg-type]


@cache
def _read(file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load((data_dir() / "mist" / file).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: holds {type(values).__name__}; write one mapping of names to entries")
    return values


def _operators(device_name: str, source: Mapping[str, Any]) -> OperatorModel:
    if set(source) == {"table"}:
        rows = read_rows(data_dir() / "mist" / source["table"])
        return OperatorModel(rows, rates_of(rows))
    if set(source) != {"assumed"} or set(source["assumed"]) != set(_ASSUMED_RATIO):
        raise ValueError(f"operators is {dict(source)}; write a table, or assumed: product, attention, memory")
    spec, share = device(device_name), source["assumed"]
    flops, traffic = spec.peak("fp16"), spec.bandwidth_Bps
    memory = Rate("bytes", share["memory"] * traffic, _ASSUMED_RATIO["memory"])
    rates = dict.fromkeys(("norm", "add", "gelu", "softmax", "embedding", "cross_entropy", "accumulate"), memory)
    # Attention's map passes through memory, so with math attention its products are bound by bandwidth.
    rates |= dict.fromkeys(("scores", "context"), Rate("bytes", share["memory"] * traffic, 2.0))
    rates["product"] = Rate("flops", share["product"] * flops, _ASSUMED_RATIO["product"])
    rates["attention"] = Rate("flops", share["attention"] * flops, _ASSUMED_RATIO["attention"])
    return OperatorModel({}, rates)
