"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class."""

from __future__ import annotations

from functools import cache

import pandas as pd

from paperlab.across import bits, fleet, one_physics, training
from paperlab.across.bits import Server
from paperlab.across.config import Config
from paperlab.across.fleet import Scene
from paperlab.across.training import Workload

ANALYTIC, SIMULATED, CPU = "analytic", "simulated", "measured-cpu"
SCENES = (Scene("llama3.1-8b", "A10", 4, "arxiv"), Scene("codellama-34b", "A10", 8, "arxiv"))
PROMPT = 2000  # tokens of every prompt of the offline map
SWEPT = ("l4", "7b", 2048)  # of the sweeps of memory and overhead
LOW_RATE_PER_S = 0.05  # at which one L4 has one request at a time, mostly


def table_bytes_check(config: Config) -> pd.DataFrame:
    """Part A: what a block keeps, by Mist's symbolic trace and by Tempo's count on the real block."""
    return training.saved_bytes(config.families).assign(evidence=CPU)


def exhibit_layer_bytes(config: Config) -> pd.DataFrame:
    """Part A: KiB that a layer keeps per token at the paper's sizes, plain and with Tempo's operators."""
    size = config.l4_sizes[:1]
    return training.layer_bytes(config.families, size, config.l4_seq_lens).assign(evidence=ANALYTIC)


def exhibit_plans(config: Config) -> pd.DataFrame:
    """Part A: the best plans without and with Tempo, of Mist's tuner and of the Megatron-LM-like one."""
    on_l4 = [
        Workload("l4", size, seq_len, attention)  # type: ignore[arg-type]
        for size in config.l4_sizes
        for seq_len in config.l4_seq_lens
        for attention in config.attentions
    ]
    on_a100 = [
        Workload("a100", size, 4096, attention)  # type: ignore[arg-type]
        for size in config.a100_sizes
        for attention in config.attentions
    ]
    return training.compare([*on_l4, *on_a100]).assign(evidence=ANALYTIC)


def exhibit_memory(config: Config) -> pd.DataFrame:
    """Part A: the same for one model as memory per GPU changes."""
    where, size, seq_len = SWEPT
    works = [Workload(where, size, seq_len, "flash", capacity_GiB=capacity) for capacity in config.capacities_GiB]
    return training.compare(works).assign(evidence=ANALYTIC)


def exhibit_overhead(config: Config) -> pd.DataFrame:
    """Part A: gains as Tempo's layers take a share more time than their traffic shows; plans are tuned anew."""
    where, size, seq_len = SWEPT
    works = [Workload(where, size, seq_len, "flash", capacity_GiB=capacity) for capacity in config.capacities_GiB]
    return pd.concat([training.compare(works, overhead) for overhead in config.overheads]).assign(evidence=ANALYTIC)


def table_prices(config: Config) -> pd.DataFrame:
    """Part B: unpartitioned iterations priced by Seesaw and by the serving core on the same node."""
    models = [scene.model for scene in SCENES]
    return one_physics.price_table(models, ("A10", "L4"), (1, 2, 4)).assign(evidence=ANALYTIC)


@cache
def _contest(config: Config) -> pd.DataFrame:
    parts = [fleet.contest(scene, config.loads, config.requests, config.seeds, config.workers) for scene in SCENES]
    return pd.concat(parts, ignore_index=True)


def exhibit_loads(config: Config) -> pd.DataFrame:
    """Part B: latencies of four systems on one trace and equal GPUs, from low load to overload."""
    return _contest(config).dropna(subset="load").assign(evidence=SIMULATED)


def exhibit_offline(config: Config) -> pd.DataFrame:
    """Part B: throughput of the four when all requests are there at once."""
    found = _contest(config)
    return found[found.load.isna()].drop(columns=["load", "rate_per_s"]).assign(evidence=SIMULATED)


def exhibit_map(config: Config) -> pd.DataFrame:
    """Part B: throughput of equal requests, all at once, by model and output length."""
    scenes = [
        Scene(scene.model, scene.device, scene.gpus, f"{PROMPT}/{output}")
        for scene in SCENES
        for output in config.outputs
    ]
    frame = fleet.offline_map(scenes, config.map_requests, config.workers)
    frame["output_tokens"] = frame.lengths.str.partition("/")[2].astype(int)
    return frame.drop(columns=["load", "rate_per_s", "seed"]).assign(evidence=SIMULATED)


def table_link(config: Config) -> pd.DataFrame:
    """Part B: what it changes for Nexus if its two lanes' all-reduces never meet on the link."""
    parts = [fleet.link_sensitivity(scene, config.map_requests, config.seeds[0]) for scene in SCENES]
    columns = ["model", "gpus", "layout", "link_contention", "requests_per_s", "tbt_mean_s"]
    return pd.concat(parts, ignore_index=True)[columns].assign(evidence=SIMULATED)


def exhibit_capacity(config: Config) -> pd.DataFrame:
    """Part C: tokens of keys and values on one GPU by bits of weights and cache."""
    return bits.capacity(_servers(config), 1024).assign(evidence=ANALYTIC)


def exhibit_bits(config: Config) -> pd.DataFrame:
    """Part C: throughput when all requests are there, by bits of weights and cache; arithmetic in fp16, and in int8."""
    servers = [*_servers(config), Server(w_bits=8, kv_bits=8, arithmetic="int8")]
    found = bits.served(servers, [None], "sharegpt", config.bits_requests, config.seeds, config.workers)
    return found.assign(evidence=SIMULATED)


def exhibit_bits_latency(config: Config) -> pd.DataFrame:
    """Part C: latencies at a low rate, by bits of weights and cache."""
    corners = [Server(w_bits=w, kv_bits=kv) for w, kv in ((16, 16), (4, 16), (16, 4), (4, 4))]
    found = bits.served(corners, [LOW_RATE_PER_S], "sharegpt", config.low_rate_requests, config.seeds)
    return found.assign(evidence=SIMULATED)


def table_accuracy(config: Config) -> pd.DataFrame:
    """Part C, apart: AQuant's measured top-1 on its own small vision task by bits."""
    found = bits.measured_accuracy(
        config.accuracy_bits, config.accuracy_bits, config.accuracy_iterations, config.accuracy_images, config.workers
    )
    return found.assign(evidence=CPU)


def _servers(config: Config) -> list[Server]:
    return [Server(w_bits=w, kv_bits=kv) for w in config.w_bits for kv in config.kv_bits]
