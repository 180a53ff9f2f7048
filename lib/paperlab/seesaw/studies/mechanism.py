"""The schematic figures (2, 3, 5-8) drawn from recorded events of small simulated runs, and the shard map."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from paperlab.seesaw.hardware import node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import Prices
from paperlab.seesaw.simulation import RESHARDING, Run
from paperlab.seesaw.workloads import workload
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import uniform
from paperlab.serving.timing import Visit
from paperlab.serving.work import StepShape
from paperlab.transformer import ModelShape, kv_bytes_per_token, preset

MODEL, DEVICE = "codellama-34b", "A10"
HOST_GIB = 10.0  # small, so that several cycles show
TWO_LAYERS = ModelShape(
    name="two layers", layers=2, hidden=64, heads=4, kv_heads=4, ffn=128, vocab=64, max_positions=64, mlp="gated",
    norm="rmsnorm", position="rope",
)  # fmt: skip


def policy_run(
    policy: str, requests: int, seed: int, host_GiB: float = HOST_GIB, heard: list[Visit] | None = None
) -> EventLog:
    """Return a run of one re-sharding policy: 34B on 4 A10s, P4 to T4, with little host memory."""
    run = Run(
        preset(MODEL), node(DEVICE), Layout.parse("P4"), Layout.parse("T4"), policy=policy,
        host_kv_bytes=host_GiB * 2**30, heard=heard.append if heard is not None else None,
    )  # fmt: skip
    lengths = uniform((1500, 3000), (100, 500), "prompts 1500-3000, outputs 100-500")
    return run.simulate(workload(lengths, requests, seed))


def occupancy(log: EventLog) -> pd.DataFrame:
    """Return sequences on the host and on the GPUs after every change: time_s, host, gpu, and the phase then."""
    changes: list[tuple[float, int, int]] = []
    for step in log.steps:
        if step.target:
            changes += [(step.end_s, 1, 0) for _ in step.emitted]
    for move in log.moves:
        to_gpu = 1 if move.target.startswith("gpu") else -1
        changes += [(move.end_s, -to_gpu, to_gpu) for _ in move.requests]
    single = {note.request_id for note in log.notes if note.kind == "finish"}
    onboard = {request_id for move in log.moves for request_id in move.requests}
    for note in log.notes:
        if note.kind == "finish":
            changes.append((note.time_s, 0, -1) if note.request_id in onboard else (note.time_s, -1, 0))
    assert single
    frame = pd.DataFrame(sorted(changes), columns=["time_s", "host", "gpu"])
    frame[["host", "gpu"]] = frame[["host", "gpu"]].cumsum()
    starts = [
        (0.0, "prefill"),
        *((switch.end_s, "prefill" if switch.target.startswith("P") else "decode") for switch in log.switches),
    ]
    phases = pd.DataFrame(starts, columns=["time_s", "phase"])
    return pd.merge_asof(frame, phases, on="time_s")


def policies(requests: int, seed: int) -> dict[str, EventLog]:
    """Return the runs of Fig. 2: the three policies on the same requests."""
    return {name: policy_run(name, requests, seed) for name in RESHARDING}


def policy_table(logs: dict[str, EventLog]) -> pd.DataFrame:
    """Return makespan, transitions, mean decode batch and re-sharding time of each run."""
    rows = []
    for name, log in logs.items():
        batches = [len(step.requests) for step in log.steps if step.shape.kind == "decode"]
        loading = sum(switch.end_s - switch.start_s for switch in log.switches)
        rows.append((name, log.end_s, len(log.switches), sum(batches) / len(batches), loading))
    return pd.DataFrame(rows, columns=["policy", "makespan_s", "transitions", "mean_decode_batch", "resharding_s"])


def effect_of_parallelism(prompt: int = 512) -> pd.DataFrame:
    """Return Fig. 3: what two GPUs do with two micro-batches in P2 and T2, by cause, from the prices of one stage.

    Columns: layout, phase, gpu, micro_batch, part, start_s, end_s.
    """
    model, rates, rows = preset("llama2-13b"), node("L4"), []
    for text in ("T2", "P2"):
        layout = Layout.parse(text)
        prices = Prices(model, layout, rates)
        for phase, step in (
            ("prefill", StepShape(prompt, 0, prompt * prompt // 2, logits=1)),
            ("decode", StepShape(0, 0, 0, 8, 8 * prompt, 8)),
        ):
            layer, layers = prices.layer(step), prices.layers[0]
            rest = layer.total - layer.weights - layer.network
            parts = (("weight load", layer.weights), ("compute", rest), ("all-reduce", layer.network))
            stage_s = layers * layer.total
            for micro in range(2):
                for gpu in range(2):
                    clock = stage_s * (micro + (gpu if text == "P2" else 0))
                    for part, seconds in parts:
                        rows.append((text, phase, gpu, micro, part, clock, clock + layers * seconds))
                        clock += layers * seconds
    columns = ["layout", "phase", "gpu", "micro_batch", "part", "start_s", "end_s"]
    return pd.DataFrame(rows, columns=columns)


def shard_map(layouts: Iterable[str] = ("P2", "T2"), model: ModelShape = TWO_LAYERS) -> pd.DataFrame:
    """Return Fig. 5: what each GPU holds of weights and of the cache in each layout, and what it keeps in common."""
    rows = []
    for text in layouts:
        for shard in Layout.parse(text).shards(model):
            rows.append((text, shard.rank, _span(shard.layers), _span(shard.query_heads), _span(shard.kv_heads),
                         shard.weight_bytes("fp16"), shard.kv_token_bytes("fp16")))  # fmt: skip
    columns = ["layout", "gpu", "layers", "query_heads", "kv_heads", "weight_bytes", "kv_bytes_per_token"]
    return pd.DataFrame(rows, columns=columns)


def store_traffic(prefill: str = "P4", decode: str = "T4", tokens: int = 2000, model: str = MODEL) -> pd.DataFrame:
    """Return Fig. 7: bytes of one prompt's cache that each GPU writes in one layout and reads in the other."""
    shape, rows = preset(model), []
    for direction, text in (("written after prefill", prefill), ("read before decode", decode)):
        for shard in Layout.parse(text).shards(shape):
            whole, mine = kv_bytes_per_token(shape, "fp16"), shard.kv_token_bytes("fp16")
            place = (direction, text, shard.rank, _span(shard.layers), _span(shard.kv_heads))
            rows.append((*place, tokens * mine, tokens * whole))
    columns = ["direction", "layout", "gpu", "layers", "kv_heads", "bytes", "bytes_of_the_prompt"]
    return pd.DataFrame(rows, columns=columns)


def timeline(seed: int, requests: int = 14, window_s: float = 30.0) -> pd.DataFrame:
    """Return Fig. 8: what stages and host links did around the first re-sharding: lane, kind, start_s, end_s."""
    heard: list[Visit] = []
    log = policy_run("seesaw", requests, seed, heard=heard)
    rows = []
    for visit in heard:
        place = f"host link {visit.stage}" if visit.kind == "swap-out" else f"stage {visit.stage}"
        if visit.kind in ("decode", "load"):
            place = "all GPUs"
        rows.append((place, visit.kind, visit.start_s, visit.end_s))
    rows += [("prefetcher", "swap-in", move.start_s, move.end_s) for move in log.moves if move.target.startswith("gpu")]
    frame = pd.DataFrame(rows, columns=["place", "kind", "start_s", "end_s"]).sort_values(["start_s", "place"])
    turn_s = log.switches[0].start_s
    near = (frame["end_s"] > turn_s - window_s / 2) & (frame["start_s"] < turn_s + window_s / 2)
    return frame[near].reset_index(drop=True)


def hidden_copies(seed: int, requests: int = 40) -> pd.DataFrame:
    """Return how much of the swap-out hides behind prefill: busy seconds of links and stages, and seconds uncovered."""
    heard: list[Visit] = []
    policy_run("seesaw", requests, seed, heard=heard)
    compute = sum(visit.end_s - visit.start_s for visit in heard if visit.kind == "prefill")
    tails = [visit for visit in heard if visit.kind == "swap-out"]
    by_step = {(visit.lane, visit.stage, visit.start_s): visit for visit in heard if visit.kind == "prefill"}
    over = sum(max(0.0, item.end_s - by_step[item.lane, item.stage, item.start_s].end_s)
               for item in tails if (item.lane, item.stage, item.start_s) in by_step)  # fmt: skip
    return pd.DataFrame([(compute, over, over / compute)], columns=["prefill_s", "copy_beyond_compute_s", "share"])


def _span(values: range) -> str:
    return str(values.start) if len(values) == 1 else f"{values.start}-{values.stop - 1}"
