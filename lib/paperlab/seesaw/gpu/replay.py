"""One rank's layers replayed alone, for calibration, and whole runs of the engine on one GPU.

Shards of any TP run one after the other on one device, with nothing in place of collectives: their own computation and
weight streaming are real, communication is not in it. Several ranks on one GPU are only ever compared by their tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paperlab.lab import timing
from paperlab.seesaw.engine import ReshardingEngine
from paperlab.seesaw.engine.shard_model import ShardModel
from paperlab.seesaw.engine.tiers import device_store
from paperlab.seesaw.gpu.bench import Bench
from paperlab.seesaw.layout import Layout, Shard, layer_matrices
from paperlab.serving import Limits, fixed, workload
from paperlab.serving.engine.attention import PagedAttention
from paperlab.serving.engine.batch import FlatBatch, flatten
from paperlab.serving.engine.checkpoint import random_decoder
from paperlab.serving.request import Request, Sequence
from paperlab.serving.work import Chunk
from paperlab.transformer import ModelShape, kv_bytes_per_token
from paperlab.transformer.model import Attend, Decoder, causal_attention, greedy

CHECKED = ModelShape(
    name="checked", layers=5, hidden=128, heads=8, kv_heads=2, ffn=256, vocab=512, max_positions=512,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
RUNS = 3  # of a whole workload, after one to warm up
BLOCK, LAYERS = 16, 2  # two layers, so that the second finds the cache as a deep model's would


def shard_replay(bench: Bench, model: ModelShape, tp: int) -> pd.DataFrame:
    """Time a layer of one rank of `model` at TP `tp`, for prompts and for decode batches.

    Rows: model, tp, phase, tokens, context, issued (kernel by kernel, or as one graph, where launching costs nothing),
    layer_s, flops and moved_bytes of the layer on this rank, bound_s (the roofline's, where the device is known) and
    the fraction of it that is reached.
    """
    shard_model = bench.shard_model(model, LAYERS, Layout(tp=tp))
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for tokens in bench.scope.prefill_tokens:
            positions = torch.arange(tokens, device=bench.on)[None]
            rows += _times(bench, shard_model, "prefill", positions, causal_attention)
        for sequences in bench.scope.decode_batches:
            batch, attend = _decoding(bench, shard_model, sequences)
            rows += _times(bench, shard_model, "decode", batch.positions_1N, attend)
    return bench.table([{"model": model.name, "tp": tp} | row for row in rows])


def _times(
    bench: Bench, model: ShardModel, phase: str, positions_1N: Tensor, attend: Attend
) -> Iterator[dict[str, Any]]:
    tokens, hidden = positions_1N.shape[1], model.shard.model.hidden
    x_1NH = torch.randn(1, tokens, hidden, device=bench.on).to(bench.dtype)
    context = bench.scope.context if phase == "decode" else 0
    flops, moved = layer_demands(model.shard, phase, tokens, context, bench.dtype.itemsize)
    roofline = timing.roofline(bench.device, bench.dtype_name)
    bound_s = max(flops / roofline.peak_flops_per_s, moved / roofline.bandwidth_Bps) if roofline else float("nan")

    def action() -> Tensor:
        return model.layers(x_1NH, positions_1N, attend)

    for issued, run in {"kernels": action, "graph": bench.graph(action)}.items():
        layer_s = bench.seconds(run) / LAYERS
        row = {"phase": phase, "tokens": tokens, "context": context, "issued": issued, "layer_s": layer_s}
        yield row | {"flops": flops, "moved_bytes": moved, "bound_s": bound_s, "fraction": bound_s / layer_s}


def layer_demands(shard: Shard, phase: str, tokens: int, context: int, size: int) -> tuple[float, float]:
    """Return FLOPs and bytes (weights, and keys and values read) of one layer on a rank; `size` bytes an element.

    A prompt has `tokens`; in decode each of `tokens` sequences has `context` stored ones.
    """
    weights = layer_matrices(shard.model) / shard.layout.tp
    pairs = tokens * (tokens + 1) / 2 if phase == "prefill" else tokens * (context + 1)
    stored = tokens if phase == "prefill" else tokens * (context + 1)
    width = shard.model.head_dim
    flops = 2 * tokens * weights + 4 * len(shard.query_heads) * width * pairs
    return flops, size * (weights + 2 * len(shard.kv_heads) * width * stored)


def _decoding(bench: Bench, model: ShardModel, sequences: int) -> tuple[FlatBatch, Attend]:
    """Return a batch that decodes after `context` stored tokens each, whose keys and values are random."""
    context = bench.scope.context
    own = -(-(context + 1) // BLOCK)
    store = device_store(model.shard, sequences * own, BLOCK, bench.dtype, bench.on)
    for tensor in (store.keys, store.values):
        tensor.normal_()
    chunks = [
        Chunk(Sequence(Request(i, 0.0, context + 1, 1), context, blocks=list(range(i * own, (i + 1) * own))), 1)
        for i in range(sequences)
    ]
    batch = flatten(chunks, {i: [0] * (context + 1) for i in range(sequences)}, store)
    if bench.device != "cuda":
        return batch, PagedAttention(store, batch)
    from paperlab.serving.engine.triton_attention import TritonAttention

    return batch, TritonAttention.of(store, batch, len(model.shard.query_heads) // len(model.shard.kv_heads))


def one_rank(bench: Bench, policy: str) -> pd.DataFrame:
    """Serve a workload on one rank: phases apart with a tier on the host, or the static baselines.

    One row per repeat: policy, makespan_s, requests_per_s, bytes out and in, and the time of both phases.
    """
    scope = bench.scope
    prompt, output = scope.request_tokens
    work = workload(fixed(prompt, output), requests=scope.requests, arrivals="at_once")
    limits, tier = Limits(token_budget=max(prompt, 2048)), _tier(scope.served, scope.requests, prompt, bench)
    decoder = bench.hold("served", lambda: random_decoder(scope.served, bench.dtype, bench.on, 0).to("cpu"))
    bench.leave()
    rows: list[dict[str, Any]] = []
    with ReshardingEngine(
        decoder, "T1", "T1", policy=policy, device=bench.device, limits=limits, host_kv_bytes=tier
    ) as engine:
        for repeat in range(-1, min(scope.repeats, RUNS)):
            log = engine.serve(work)
            counts, phases = engine.trace().counts(), engine.trace().phases()
            seconds = (phases.end_s - phases.start_s).groupby(phases.kind).sum()
            row = {"policy": policy, "repeat": repeat, "makespan_s": log.end_s}
            row |= {"requests_per_s": scope.requests / log.end_s, "kv_out_bytes": int(counts.kv_out_bytes.sum())}
            row |= {"kv_in_bytes": int(counts.kv_in_bytes.sum())}
            rows.append(row | {f"{kind}_s": float(seconds.get(kind, 0.0)) for kind in ("prefill", "decode", "mixed")})
    return bench.table([row for row in rows if row["repeat"] >= 0])


def _tier(model: ModelShape, requests: int, tokens: int, bench: Bench) -> int:
    return requests * (tokens + BLOCK) * kv_bytes_per_token(model, bench.dtype_name)


def shared_gpu(bench: Bench, prefill: str, decode: str) -> pd.DataFrame:
    """Compare the tokens of two ranks that share this device with one process's, in fp32; no times are kept."""
    bench.leave()
    model = CHECKED
    decoder = Decoder(model).initialize(0, std=0.1).requires_grad_(False).eval()
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(model.vocab, (n,), generator=draw).tolist() for n in (5, 33, 16, 47)]
    with ReshardingEngine(
        decoder, prefill, decode, device=bench.device, share_gpu=True, dtype=torch.float32, host_kv_bytes=4 << 20,
        device_kv_bytes=16 << 20,
    ) as engine:  # fmt: skip
        found = [list(done.tokens) for done in engine.generate(prompts, 16)]
        counts = engine.trace().counts()
    expected = [greedy(decoder, torch.tensor([prompt]), 16)[0, len(prompt) :].tolist() for prompt in prompts]
    equal = sum(ours == theirs for ours, theirs in zip(found, expected, strict=True))
    row = {"prefill": prefill, "decode": decode, "prompts": len(prompts), "equal": equal, "dtype": "fp32"}
    row |= {"kv_out_bytes": int(counts.kv_out_bytes.sum()), "weight_bytes": int(counts.weight_bytes.sum())}
    return pd.DataFrame([bench.columns | row])
