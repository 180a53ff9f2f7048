"""What a run of the real engine says to the paper's rules: when phases turn, whom a decode step serves, what grows.

All is read from the events of a run, not from what the scheduler says of itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import pandas as pd

from paperlab.seesaw.engine import RankPool, ReshardingEngine
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.studies.engine_study import SMALL, Way, about, serve
from paperlab.serving import fixed, workload
from paperlab.transformer import ModelShape, kv_bytes_per_token

HOST_KV_BYTES = 32 * 1024  # of the comparison: a few short prompts, so that several cycles pass


def against_hugging_face(
    pool: RankPool, ways: Sequence[Way], lengths: Sequence[int] = (5, 33, 16, 47, 9, 21, 64, 1), new_tokens: int = 12
) -> pd.DataFrame:
    """Compare greedy tokens with Hugging Face's `generate` on the same checkpoint, in fp32, one prompt at a time there.

    Returns:
        One row per way: way, prompts, equal (how many of them came out the same), tokens compared, transitions.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5, "vocab_size": 96}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 512}
    config = LlamaConfig(**sizes, **heads, initializer_range=0.1, eos_token_id=None, bos_token_id=None)
    draw = torch.Generator().manual_seed(1)
    prompts = [torch.randint(config.vocab_size, (length,), generator=draw) for length in lengths]
    model = LlamaForCausalLM(config).eval()
    greedy = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    expected = []
    for prompt in prompts:
        whole = model.generate(prompt[None], attention_mask=torch.ones_like(prompt)[None], **greedy)
        expected.append(tuple(whole[0, len(prompt) :].tolist()))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for way in ways:
            with ReshardingEngine(
                folder,
                way.prefill,
                way.decode,
                pool=pool,
                policy=way.policy,
                host_kv_bytes=HOST_KV_BYTES,
                prefetch_in_prefill=False,
            ) as engine:
                found = engine.generate([prompt.tolist() for prompt in prompts], new_tokens)
                equal = sum(ours.tokens == theirs for ours, theirs in zip(found, expected, strict=True))
                row = {"way": way.label, "prompts": len(prompts), "equal": equal, "tokens": new_tokens * len(prompts)}
                rows.append(row | {"transitions": len(engine.log.switches)} | about(engine.trace()))
    return pd.DataFrame(rows)


def turns(trace: Trace) -> pd.DataFrame:
    """Return what the host's tier held whenever the first replica turned.

    Returns:
        One row per turn: time_s, target (the phase that follows), host_used and host_blocks, next_blocks (of the next
        prompt in line; 0: none is left) and as_stated: whether the host was full for that prompt, empty, or no prompt
        was left, as §4.2 says.
    """
    log, size = trace.log, trace.log.about["block_size"]
    host, first = log.about["host_blocks"], Layout.parse(log.about["layout"].partition("→")[0]).replica
    rows = []
    for switch in log.switches:
        done = {r for step in log.steps if step.target and step.end_s <= switch.start_s for r in step.requests}
        staged = [log.requests[request] for request in done if log.requests[request].output_tokens > 1]
        used = sum(-(-request.prompt_tokens // size) for request in staged)
        moves = [move for move in log.moves if move.end_s <= switch.start_s]
        used += sum(move.blocks if move.target.startswith("host") else -move.blocks for move in moves)
        left = [request for request in sorted(log.requests) if request not in done]
        following = -(-log.requests[left[0]].prompt_tokens // size) if left else 0
        to_prefill = Layout.parse(switch.target) == first
        stated = used == 0 if to_prefill else not left or used + following > host
        row = {"time_s": switch.start_s, "target": "prefill" if to_prefill else "decode", "host_used": used}
        rows.append(row | {"host_blocks": host, "next_blocks": following, "as_stated": stated} | about(trace))
    return pd.DataFrame(rows)


def decode_groups(trace: Trace) -> pd.DataFrame:
    """Return whom each decode step of the first replica served.

    Returns:
        One row per step: start_s, resident (sequences on the devices then), served, and share: the size that §5.1
        states, ceil(resident / PP).
    """
    log = trace.log
    stages = Layout.parse(log.about["layout"].rpartition("→")[2]).pp
    arrived = {request: move.end_s for move in log.moves for request in move.requests if move.target == "gpu0"}
    finished = {note.request_id: note.time_s for note in log.notes if note.kind == "finish"}
    rows = []
    for step in log.steps:
        if step.shape.kind == "decode":
            resident = sum(at <= step.start_s < finished[request] for request, at in arrived.items())
            row = {"start_s": step.start_s, "stages": stages, "resident": resident, "served": len(step.requests)}
            rows.append(row | {"share": -(-resident // stages)} | about(trace))
    return pd.DataFrame(rows)


def reload_against_swap(
    pool: RankPool, batches: Sequence[int], way: Way, repeats: int = 3, prompt: int = 128, model: ModelShape = SMALL
) -> pd.DataFrame:
    """Prefill batches of so many prompts, re-shard once, and decode: what does each kind of copy take (§5.2)?

    Returns:
        One row per batch and repeat, in turns: sequences, reload_s (of the slowest rank, once), swap_s (out and in, of
        the busiest rank), kv_bytes and weight_bytes (of all ranks).
    """
    rows = []
    for repeat in range(-1, repeats):  # the first round warms up
        for sequences in batches:
            work = workload(fixed(prompt, 2), requests=sequences, arrivals="at_once")
            device = sequences * (prompt + 64) * kv_bytes_per_token(model, "fp32")
            trace = serve(pool, work, way, 1.5, model, device_kv_bytes=device)
            table = trace.table().assign(seconds=lambda t: t.end_s - t.start_s)
            moved = table.groupby("kind").moved_bytes.sum()
            longest = table.groupby(["kind", "rank"]).seconds.sum().groupby("kind").max()
            row = {"sequences": sequences, "repeat": repeat, "reload_s": longest["load"]}
            row |= {"swap_s": longest["swap-out"] + longest["swap-in"], "weight_bytes": moved["load"]}
            row |= {"kv_bytes": moved["swap-out"] + moved["swap-in"], "transitions": len(trace.log.switches)}
            if repeat >= 0:
                rows.append(row | about(trace))
    return pd.DataFrame(rows)


def growth(table: pd.DataFrame, column: str) -> float:
    """Return the exponent with which a column's median grows with the batch: 0 for none, 1 for proportional."""
    medians = table.groupby("sequences")[column].median()
    return float(np.polyfit(np.log(medians.index), np.log(medians), 1)[0])
