"""Part C: what fewer bits of weights and cache do to one GPU that serves, in the serving core's simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paperlab.across.one_physics import constants_of
from paperlab.lab.workers import in_processes
from paperlab.seesaw.hardware import node
from paperlab.seesaw.workloads import length_source
from paperlab.serving.deployment import Deployment
from paperlab.serving.policy import Limits
from paperlab.serving.simulator import simulate
from paperlab.serving.workload import workload
from paperlab.transformer import preset


@dataclass(frozen=True)
class Server:
    """A model on one GPU with its layers' weights and its cache in so many bits; 16 and 16 is the plain model.

    Scales of the quantizers are not counted (a 16-bit one per 128 elements would add 0.125 bits). `arithmetic` is the
    format at whose peak matrices are multiplied: fp16, as if weights were unpacked on the fly, or int8.
    """

    model: str = "llama3.1-8b"
    device: str = "L4"
    w_bits: float = 16
    kv_bits: float = 16
    arithmetic: str = "fp16"

    def __post_init__(self) -> None:
        for name in ("w_bits", "kv_bits"):
            if not 0 < getattr(self, name) <= 16:
                raise ValueError(f"{name} is {getattr(self, name)}; give bits above 0 and up to 16")

    @property
    def options(self) -> dict[str, Any]:
        """What differs from the core's defaults, for `simulate`."""
        return {
            "constants": constants_of(node(self.device), preset(self.model)), "dtype": "fp16",
            "weight_element_bytes": self.w_bits / 8, "kv_element_bytes": self.kv_bits / 8,
            "arithmetic": self.arithmetic,
        }  # fmt: skip

    @property
    def deployment(self) -> Deployment:
        """The model on its device."""
        return Deployment(preset(self.model), node(self.device).device, **self.options)


def capacity(servers: Iterable[Server], tokens_per_sequence: int) -> pd.DataFrame:
    """Return per server the GiB of weights, bytes of a cached token, tokens that fit, and sequences of one length."""
    rows = []
    for server in servers:
        setup = server.deployment
        tokens = setup.kv_blocks * setup.block_size
        rows.append({
            "device": server.device, "model": server.model, "w_bits": server.w_bits, "kv_bits": server.kv_bits,
            "weights_GiB": setup.stored_weight_bytes / 2**30, "kv_token_bytes": setup.cost.kv_token_bytes,
            "kv_tokens": tokens, "sequences": tokens // tokens_per_sequence,
        })  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Cell:
    """One trace on one server; without a rate all requests are there at time 0."""

    server: Server
    rate_per_s: float | None
    lengths: str
    requests: int
    seed: int

    def row(self) -> dict[str, object]:
        """Serve it with chunked prefill and return a row of metrics."""
        server, arrivals = self.server, "at_once" if self.rate_per_s is None else "poisson"
        work = workload(length_source(self.lengths), self.rate_per_s, self.requests, self.seed, arrivals)
        log = simulate(
            "vllm-like", model=server.model, device=server.device, workload=work,
            limits=Limits(2048, 256), **server.options,
        )  # fmt: skip
        found = log.summary().iloc[0]
        names = ("ttft_mean_s", "tbt_mean_s", "normalized_latency_mean_s", "requests_per_s", "preemptions")
        batches = [step.shape.decode_tokens for step in log.steps if step.shape.decode_tokens]
        return {
            "device": server.device, "model": server.model, "lengths": self.lengths, "w_bits": server.w_bits,
            "kv_bits": server.kv_bits, "arithmetic": server.arithmetic, "rate_per_s": self.rate_per_s,
            "seed": self.seed, **{name: float(found[name]) for name in names},
            "decode_batch": float(np.mean(batches)),
        }  # fmt: skip


def served(
    servers: Iterable[Server],
    rates: Iterable[float | None],
    lengths: str,
    requests: int,
    seeds: Sequence[int],
    workers: int = 1,
) -> pd.DataFrame:
    """Return a row per server, rate (None: all at once) and seed: throughput and latencies, chunked prefill."""
    points = list(rates)
    cells = [Cell(server, rate, lengths, requests, seed) for server in servers for rate in points for seed in seeds]
    return pd.DataFrame(in_processes(Cell.row, cells, workers))


def measured_accuracy(
    w_bits: Iterable[int], a_bits: Iterable[int], iterations: int, images: int, workers: int = 1
) -> pd.DataFrame:
    """Return AQuant's measured top-1 on its own small vision task by weight and activation bits, with the drop.

    One small convolutional net on procedural pictures: it says nothing about a language model's accuracy, and stands
    beside the serving numbers only as the accuracy that this repository can measure.
    """
    from paperlab.aquant.studies.cases import Case, table

    activations = list(a_bits)
    found = [
        Case("AQuant", w_bits=w, a_bits=a, iterations=iterations, images=images) for w in w_bits for a in activations
    ]
    frame = table(found, workers)
    frame["drop_points"] = frame["float_top1"] - frame["top1"]
    return frame[["network", "task", "net_seed", "w_bits", "a_bits", "float_top1", "top1", "drop_points"]]
