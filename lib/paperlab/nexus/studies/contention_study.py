"""Decode beside prefill at a fixed split: the bandwidth they share, by the cost model (§3.3, §4.1.1, Fig. 6a)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paperlab.nexus.saturation import PUBLISHED_DECODE
from paperlab.nexus.studies.saturation_study import published_model
from paperlab.serving.work import StepShape

FORMS = ("bytes", "rate", "none")
CHUNK = 2048


def chunk(context: int, tokens: int = CHUNK) -> StepShape:
    """Return a prefill chunk of `tokens` after `context` stored ones."""
    return StepShape(tokens, context, tokens * context + tokens * (tokens + 1) // 2)


def by_prefill_context(
    contexts: Sequence[int] = tuple(range(0, 10_001, 1000)),
    prefill_percent: float = 50,
    decode: StepShape = PUBLISHED_DECODE,
) -> pd.DataFrame:
    """Return decode's forecast latency against the stored tokens that a prefill chunk beside it attends to (Fig. 6a).

    The paper measured a rise of 36 % from 2,000 to 10,000 tokens. The byte form forecasts a fall: the longer the
    cache, the larger the part of prefill's time in attention, which moves fewer bytes than the weights do.

    Columns: contention, prefill_context, overlap (P_attn), bandwidth (B_decode / B), latency_s, over_alone.
    """
    share, rows = prefill_percent / 100, []
    for form in FORMS:
        model = published_model(contention=form)
        for context in contexts:
            co_run = model.co_run(chunk(context), decode)
            latency_s = co_run.decode_s(1 - share, share)
            cells = (co_run.overlap(share), co_run.decode_bandwidth(share), latency_s)
            rows.append((form, context, *cells, latency_s / co_run.decode_s(1 - share)))
    columns = ["contention", "prefill_context", "overlap", "bandwidth", "latency_s", "over_alone"]
    return pd.DataFrame(rows, columns=columns)


def by_split(
    percents: Sequence[int] = tuple(range(10, 91, 10)), context: int = 8000, decode: StepShape = PUBLISHED_DECODE
) -> pd.DataFrame:
    """Return the stated dynamics over the split: columns contention, prefill_percent, overlap, bandwidth, latency_s.

    The paper says that more multiprocessors for decode stretch prefill, lower P_attn and so soften contention. In our
    reading of its form P_attn does fall; but the weights that prefill's dense layers move are more bytes than its
    attention's, so decode's bandwidth falls with it.
    """
    rows = []
    for form in FORMS:
        co_run = published_model(contention=form).co_run(chunk(context), decode)
        for percent in percents:
            share = percent / 100
            cells = (co_run.overlap(share), co_run.decode_bandwidth(share), co_run.decode_s(1 - share, share))
            rows.append((form, percent, *cells))
    return pd.DataFrame(rows, columns=["contention", "prefill_percent", "overlap", "bandwidth", "latency_s"])
