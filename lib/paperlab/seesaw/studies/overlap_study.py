"""How much of the swap-out prefill hides: no copies, copies behind the computation, copies that it waits for (§5.2).

Links to the host are emulated: each rank's is made so slow that copying takes a given share of its computation. So the
ratio of the two is set, and what is measured is whether copying and computing really go on at the same time.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from paperlab.seesaw.engine import RankPool, ReshardingEngine
from paperlab.seesaw.engine.write_through import Copies
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.studies.engine_study import SMALL, about
from paperlab.serving import Limits, Workload, fixed, workload
from paperlab.transformer import ModelShape, kv_bytes_per_token
from paperlab.transformer.model import Decoder

TOKENS = 128  # of a prompt; each is a micro-batch


def overlap(
    pool: RankPool,
    layout: str = "P2",
    share: float = 0.3,
    prompts: int = 12,
    repeats: int = 5,
    model: ModelShape = SMALL,
) -> pd.DataFrame:
    """Prefill in three ways, in turns; in each round copies take `share` of the computation measured in that round.

    Returns:
        One row per round and arm: copies, makespan_s, ratio (to the same round's `none`), compute_s (with
        collectives) and copy_s of the busiest rank, host_link_Bps (emulated; 0: no copies).
    """
    work = workload(fixed(TOKENS, 1), requests=prompts, arrivals="at_once")
    decoder = Decoder(model).initialize(0).requires_grad_(False)
    part = max(shard.kv_token_bytes("fp32") for shard in Layout.parse(layout).shards(model))
    rows = []
    for repeat in range(-1, repeats):  # the first round warms up
        base = _prefill(pool, layout, decoder, work, "none", None)
        rate = part * prompts * TOKENS / (share * base["compute_s"])
        arms = [base] + [_prefill(pool, layout, decoder, work, copies, rate) for copies in ("overlapped", "blocking")]
        if repeat >= 0:
            shared = {"layout": layout, "copy_share": share, "repeat": repeat}
            rows += [shared | arm | {"ratio": arm["makespan_s"] / base["makespan_s"]} for arm in arms]
    return pd.DataFrame(rows)


def _prefill(
    pool: RankPool, layout: str, decoder: Decoder, work: Workload, copies: Copies, rate: float | None
) -> dict[str, Any]:
    tier = sum(request.prompt_tokens + 16 for request in work.requests) * kv_bytes_per_token(decoder.shape, "fp32")
    limits = Limits(token_budget=TOKENS, max_sequences=1)
    with ReshardingEngine(
        decoder, layout, layout, pool=pool, limits=limits, copies=copies, host_link_Bps=rate, host_kv_bytes=tier
    ) as engine:
        log = engine.serve(work)
    table = engine.trace().table()
    seconds = (table.end_s - table.start_s).groupby([table.kind, table["rank"]]).sum()
    busiest = seconds.groupby("kind").max()
    return {
        "copies": copies, "makespan_s": log.end_s, "compute_s": busiest["prefill"],
        "copy_s": busiest.get("swap-out", 0.0), "host_link_Bps": rate or 0.0,
    } | about(engine.trace())  # fmt: skip
