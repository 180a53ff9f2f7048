"""One simulated run: a policy on a model, a node and a workload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from paperlab.hardware import LinkSpec
from paperlab.seesaw.baselines import StaticPrefillFirst
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.policies import Seesaw
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.serving.cluster import Cluster
from paperlab.serving.events import EventLog
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import Limits, Policy, make_policy
from paperlab.serving.simulator import Simulator
from paperlab.serving.timing import Link, Pipeline, Timing, Visit
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape, kv_bytes_per_token, preset

BLOCK_SIZE = 16
PREFILL_TOKENS = 4096  # of a batch of prompts that run alone; their length is what matters, not their number
RESHARDING = ("seesaw", "reshard-prefill-first", "reshard-decode-first")


@dataclass(frozen=True)
class Run:
    """What to simulate. `decode` is left out for a static layout; `chunk_tokens` 0 means prompts apart from decodes.

    `host_kv_bytes` is the whole node's; by default the node's own per GPU, times the GPUs.
    """

    model: ModelShape
    node: Node
    prefill: Layout
    decode: Layout | None = None
    chunk_tokens: int = 0
    policy: str = "seesaw"
    host_kv_bytes: float | None = None
    prefetch_in_prefill: bool = True
    max_sequences: int = 256
    prefill_tokens: int = PREFILL_TOKENS
    heard: Callable[[Visit], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.decode is None:
            if self.chunk_tokens < 0:
                raise ValueError(f"Run: chunk_tokens is {self.chunk_tokens}; 0 or more")
        elif self.policy not in RESHARDING:
            raise ValueError(f"Run: policy is {self.policy!r}; re-sharding ones are {', '.join(RESHARDING)}")
        elif (self.prefill.dp, self.prefill.ranks) != (self.decode.dp, self.decode.ranks):
            raise ValueError(f"Run: prefill is {self.prefill}, decode {self.decode}; DP and GPUs must stay the same")

    @property
    def label(self) -> str:
        """The layouts as the paper writes them, and the chunk size of a static one."""
        if self.decode is not None:
            return f"{self.prefill}→{self.decode}"
        return f"{self.prefill}" + (f" chunk {self.chunk_tokens}" if self.chunk_tokens else "")

    @property
    def gpu_tokens(self) -> int:
        """Tokens of keys and values on the GPUs of one replica; 0 where the weights do not fit."""
        if self.decode is None:
            return kv_tokens(self.model, self.node, self.prefill)
        staging = 2 * self.prefill_tokens
        return kv_tokens(self.model, self.node, self.prefill, self.decode, staging_tokens=staging)

    @property
    def host_tokens(self) -> int:
        """Tokens that one replica's part of the host memory holds."""
        whole = self.node.host_kv_bytes * self.prefill.ranks if self.host_kv_bytes is None else self.host_kv_bytes
        return int(whole / self.prefill.dp / kv_bytes_per_token(self.model, self.node.dtype))

    def build_policy(self) -> Policy:
        """Return the policy object."""
        if self.decode is None:
            limits = Limits(self.chunk_tokens or self.prefill_tokens, self.max_sequences)
            name = "static-chunked" if self.chunk_tokens else "static-prefill-first"
            return make_policy(name, limits=limits, layout=self.prefill)
        limits = Limits(self.prefill_tokens, self.max_sequences)
        return make_policy(
            self.policy, limits=limits, prefill=self.prefill.replica, decode=self.decode.replica,
            replicas=self.prefill.dp, prefetch_in_prefill=self.prefetch_in_prefill,
        )  # fmt: skip

    def simulate(self, workload: Workload) -> EventLog:
        """Serve `workload` and return the log; ValueError where the model does not fit."""
        if self.gpu_tokens < BLOCK_SIZE:
            raise ValueError(
                f"{self.model.name} does not fit on {self.prefill.ranks} x {self.node.name} as {self.label}"
            )
        policy = self.build_policy()
        log = EventLog(about=self._about(workload))
        blocks = self.gpu_tokens // BLOCK_SIZE
        host = max(1, self.host_tokens // BLOCK_SIZE)
        cluster = build_cluster(policy, blocks, host, BLOCK_SIZE, self.model.max_positions, log)
        return Simulator(policy, cluster, self._timings(policy)).run(workload.requests)

    def _about(self, workload: Workload) -> dict[str, object]:
        return {
            "system": self.policy if self.decode is not None else "static", "layout": self.label,
            "model": self.model.name, "device": self.node.name, "gpus": self.prefill.ranks, "workload": workload.name,
            "seed": workload.seed, "kv_blocks": self.gpu_tokens // BLOCK_SIZE, "block_size": BLOCK_SIZE,
            "evidence": "simulated",
        }  # fmt: skip

    def _timings(self, policy: Policy) -> dict[str, Timing]:
        layouts = {str(layout.replica): layout for layout in (self.prefill, self.decode) if layout is not None}
        prices = {name: Prices(self.model, layout, self.node) for name, layout in layouts.items()}
        found: dict[str, Timing] = {}
        for replica in range(self.prefill.dp):
            found[f"gpu{replica}"] = Pipeline(prices, str(self.prefill.replica), self.heard)
            if self.decode is not None:
                for direction in ("in", "out"):
                    found[f"link{replica}.{direction}"] = self._host_link()
        return found

    def _host_link(self) -> Link:
        """Return the links of a replica's ranks, which copy their parts side by side; the largest part counts."""
        assert self.decode is not None
        part = max(shard.kv_token_bytes(self.node.dtype) for shard in self.decode.replica.shards(self.model))
        spec = LinkSpec(
            name="host", source="paper §6.1", confidence="datasheet", bandwidth_Bps=self.node.host_Bps, latency_s=1e-5
        )
        return Link(spec, BLOCK_SIZE * part)


def build_cluster(
    policy: Policy, gpu_blocks: int, host_blocks: int, block_size: int, max_tokens: int, log: EventLog
) -> Cluster:
    """Return an empty cluster for a policy of this package, its devices in their initial configuration.

    Requests that would not fit the host are refused where the policy stages prompts there.
    """
    devices = sorted({lane.resource for lane in policy.lanes if lane.kind == "compute"})
    pools = [BlockPool(name, gpu_blocks, block_size) for name in devices]
    if isinstance(policy, Seesaw):
        pools += [BlockPool(name.replace("gpu", "host"), host_blocks, block_size) for name in devices]
        max_tokens = min(max_tokens, host_blocks * block_size)
    cluster = Cluster(policy.lanes, pools, max_tokens, log)
    assert isinstance(policy, Seesaw | StaticPrefillFirst)
    cluster.configurations = dict.fromkeys(devices, policy.initial)
    return cluster


def run(model: str | ModelShape, device: str | Node, layout: str, *, chunk_tokens: int = 0, **options: object) -> Run:
    """Return a run by names, such as `run("llama2-70b", "a10", "P8>T4P2")` or `run("llama2-70b", "a10", "T4P2")`."""
    shape = preset(model) if isinstance(model, str) else model
    first, _, second = layout.replace("→", ">").replace("->", ">").partition(">")
    decode = Layout.parse(second) if second else None
    return Run(shape, node(device), Layout.parse(first), decode, chunk_tokens, **options)  # type: ignore[arg-type]
