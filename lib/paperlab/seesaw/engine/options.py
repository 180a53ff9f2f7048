"""How an engine serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import torch

from paperlab.seesaw.engine.session import DTYPE_NAMES
from paperlab.seesaw.engine.write_through import Copies
from paperlab.seesaw.layout import Layout
from paperlab.serving.policy import Limits, Policy, make_policy


@dataclass(frozen=True)
class EngineOptions:
    """How to serve.

    policy: name of a scheduler of this package, or a policy object. host_kv_bytes, device_kv_bytes: keys and values
    of one replica on the host and on its devices together; the latter defaults to 64 MiB on CPUs, to what fits on
    GPUs. limits: token budget and sequence cap of a micro-batch. copies: `overlapped`, `blocking`, or `none`, which
    drops the keys and values and so can only yield first tokens. host_link_Bps, peer_bus_Bps: emulated rates of each
    rank's link to the host and of the ring between tensor-parallel ranks; None leaves them as they are. seed: of
    random weights. dtype: default float32 on CPUs, bfloat16 on GPUs.
    """

    policy: str | Policy = "seesaw"
    host_kv_bytes: int = 64 << 20
    device_kv_bytes: int | None = None
    block_size: int = 16
    limits: Limits = field(default_factory=Limits)
    prefetch_in_prefill: bool = True
    copies: Copies = "overlapped"
    host_link_Bps: float | None = None
    peer_bus_Bps: float | None = None
    device: str = "cpu"
    share_gpu: bool = False
    dtype: torch.dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("host_kv_bytes", "device_kv_bytes", "block_size", "host_link_Bps", "peer_bus_Bps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"EngineOptions: {name} is {value}; it must be positive")
        if self.copies not in get_args(Copies):
            raise ValueError(f"EngineOptions: copies is {self.copies!r}; use {', '.join(get_args(Copies))}")
        if self.dtype is not None and self.dtype not in DTYPE_NAMES:
            raise ValueError(f"EngineOptions: dtype is {self.dtype}; use float32, float16 or bfloat16")

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype of weights and cache."""
        return self.dtype or (torch.bfloat16 if self.device == "cuda" else torch.float32)

    def make_policy(self, prefill: Layout, decode: Layout) -> Policy:
        """Return the scheduler for these layouts; ValueError for an unknown one, or a static one with two layouts."""
        if not isinstance(self.policy, str):
            return self.policy
        if self.policy.startswith("static"):
            if prefill != decode:
                raise ValueError(f"policy is {self.policy!r}; prefill and decode must be one layout then")
            return make_policy(self.policy, limits=self.limits, layout=prefill)
        return make_policy(
            self.policy, limits=self.limits, prefill=prefill.replica, decode=decode.replica, replicas=prefill.dp,
            prefetch_in_prefill=self.prefetch_in_prefill,
        )  # fmt: skip
