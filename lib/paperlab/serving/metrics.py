"""What users and operators ask about a run, computed from its event log alone (Nexus §6.1 for the definitions).

Time to first token (TTFT) counts from arrival, queueing included. Time between tokens (TBT) is the gap between two
successive tokens of one request, the first token's wait left out. Normalized latency is a request's whole latency over
its output tokens. Means of TBT pool all gaps of all requests; the paper does not say whether it does, so the mean of
per-request means stands beside it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from paperlab.serving.events import EventLog

STATISTICS = ("mean", "p50", "p95", "p99")
METRICS = ("ttft", "tbt", "normalized_latency")


class Tokens(NamedTuple):
    """Every token that came out, sorted by request and time; `start` marks each request's first one."""

    request_id: np.ndarray
    time_s: np.ndarray
    start: np.ndarray  # index of the first token per request
    ids: np.ndarray  # the request of each start

    @property
    def gaps_s(self) -> np.ndarray:
        """All gaps between successive tokens of a request, pooled."""
        inside = self.request_id[1:] == self.request_id[:-1]
        return np.diff(self.time_s)[inside]


def tokens(log: EventLog) -> Tokens:
    """Return all tokens of a log."""
    counts = [len(step.emitted) for step in log.steps]
    ids = np.fromiter(chain.from_iterable(step.emitted for step in log.steps), np.int64, sum(counts))
    times = np.repeat(np.array([step.end_s for step in log.steps], dtype=float), counts)
    order = np.argsort(ids, kind="stable")
    ids, times = ids[order], times[order]
    start = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, np.int64)
    return Tokens(ids, times, start, ids[start])


def per_request(log: EventLog) -> pd.DataFrame:
    """Return one row per request that arrived, in the order of their ids.

    Columns: request_id, arrival_s, prompt_tokens, output_tokens (that came out), status (`finished`, `refused` or
    `unfinished`), ttft_s, latency_s (to the last token so far), tbt_mean_s, tbt_max_s, normalized_latency_s, the stages
    execution_s (iterations it was part of), scheduler_s (decisions before those) and waiting_s (all the rest: queues,
    copies, pre-emption), which add up to latency_s, and preemptions. What a request never had is missing.
    """
    import pandas as pd

    ids = np.array(sorted(log.requests), dtype=np.int64)
    frame = pd.DataFrame({"request_id": ids})
    for name in ("arrival_s", "prompt_tokens"):
        frame[name] = [getattr(log.requests[request_id], name) for request_id in ids]
    frame = frame.join(_token_times(log, ids))
    frame["latency_s"] = frame["last_s"] - frame["arrival_s"]
    frame["ttft_s"] = frame["first_s"] - frame["arrival_s"]
    frame["normalized_latency_s"] = frame["latency_s"] / frame["output_tokens"]
    frame["execution_s"], frame["scheduler_s"] = _stages(log, ids, frame["last_s"].to_numpy())
    frame["waiting_s"] = frame["latency_s"] - frame["execution_s"] - frame["scheduler_s"]
    frame["preemptions"] = _count(log, "preempt", ids)
    status = np.where(_count(log, "finish", ids) > 0, "finished", "unfinished")
    frame["status"] = np.where(_count(log, "refuse", ids) > 0, "refused", status)
    return frame.drop(columns=["first_s", "last_s"])


def summary(log: EventLog) -> pd.DataFrame:
    """Return one row: the run's description, then its metrics.

    For TTFT, TBT (all gaps pooled) and normalized latency the columns `<metric>_<statistic>_s` hold mean, p50, p95 and
    p99; `tbt_request_mean_s` is the mean of per-request means. TTFT is over requests whose first token came out,
    normalized latency over finished ones: where `unfinished` is not 0 both are censored and leave out the slowest.
    `recomputed_tokens` is what pre-emption threw away, `moved_blocks` what was swapped or transferred.
    """
    import pandas as pd

    requests = per_request(log)
    finished = requests[requests["status"] == "finished"]
    values = {
        "ttft": requests["ttft_s"].dropna().to_numpy(),
        "tbt": tokens(log).gaps_s,
        "normalized_latency": finished["normalized_latency_s"].to_numpy(),
    }
    row = {name: value for name, value in log.about.items() if name != "lanes"}
    for metric in METRICS:
        row |= {f"{metric}_{name}_s": value for name, value in _statistics(values[metric]).items()}
    row["tbt_request_mean_s"] = requests["tbt_mean_s"].mean()
    for stage in ("execution", "scheduler", "waiting"):
        row[f"{stage}_per_token_s"] = (finished[f"{stage}_s"] / finished["output_tokens"]).mean()
    row |= {status: int((requests["status"] == status).sum()) for status in ("finished", "refused", "unfinished")}
    row |= _rates(log, requests)
    row["preemptions"] = int(requests["preemptions"].sum())
    row["recomputed_tokens"] = sum(note.tokens for note in log.notes)
    row["moved_blocks"] = sum(move.blocks for move in log.moves)
    row["layout_switches"] = sum(note.kind == "layout" for note in log.notes)
    row["mixed_share"] = _mixed_share(log)
    row["kv_usage_peak"] = max((step.kv_used for step in log.steps), default=0) / log.about.get("kv_blocks", np.inf)
    return pd.DataFrame([row])


def iterations(log: EventLog) -> pd.DataFrame:
    """Return count, share_percent and mean latency_s of `prefill`, `decode` and `mixed` iterations (Fig. 4a)."""
    import pandas as pd

    frame = pd.DataFrame(
        {"kind": [step.shape.kind for step in log.steps], "latency_s": [s.end_s - s.start_s for s in log.steps]}
    )
    table = frame.groupby("kind").latency_s.agg(["size", "mean"]).reindex(["prefill", "decode", "mixed"])
    table = table.rename(columns={"size": "count", "mean": "latency_s"}).reset_index()
    table["count"] = table["count"].fillna(0).astype(int)
    table["share_percent"] = 100 * table["count"] / max(1, len(frame))
    return table


def kv_usage(log: EventLog) -> pd.DataFrame:
    """Return the usage of each pool at the start of every iteration that works on it: pool, time_s, usage (0 to 1)."""
    import pandas as pd

    blocks, lanes = log.about["kv_blocks"], log.about["lanes"]
    rows = [(lanes[step.lane], step.start_s, step.kv_used / blocks) for step in log.steps]
    return pd.DataFrame(rows, columns=["pool", "time_s", "usage"]).sort_values(["pool", "time_s"], ignore_index=True)


def _token_times(log: EventLog, ids: np.ndarray) -> pd.DataFrame:
    """Return output_tokens, first_s, last_s, tbt_mean_s and tbt_max_s by position in `ids`."""
    import pandas as pd

    found = tokens(log)
    ends = np.r_[found.start[1:], len(found.time_s)] - 1 if len(found.start) else found.start
    at = np.searchsorted(ids, found.ids)
    frame = pd.DataFrame({"output_tokens": np.zeros(len(ids), np.int64)})
    for name in ("first_s", "last_s", "tbt_mean_s", "tbt_max_s"):
        frame[name] = np.nan
    if not len(found.start):
        return frame
    counts = ends - found.start + 1
    first, last = found.time_s[found.start], found.time_s[ends]
    steps = np.r_[0.0, np.diff(found.time_s)]
    steps[found.start] = 0.0  # the gap before a request's first token belongs to no one
    with np.errstate(invalid="ignore"):
        mean = np.where(counts > 1, (last - first) / np.maximum(counts - 1, 1), np.nan)
    largest = np.where(counts > 1, np.maximum.reduceat(steps, found.start), np.nan)
    for name, column in (("output_tokens", counts), ("first_s", first), ("last_s", last)):
        frame.loc[at, name] = column
    frame.loc[at, "tbt_mean_s"], frame.loc[at, "tbt_max_s"] = mean, largest
    return frame


def _stages(log: EventLog, ids: np.ndarray, last_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return execution and scheduler seconds of each request up to its last token."""
    counts = [len(step.requests) for step in log.steps]
    members = np.fromiter(chain.from_iterable(step.requests for step in log.steps), np.int64, sum(counts))
    at = np.searchsorted(ids, members)
    ends = np.repeat(np.array([step.end_s for step in log.steps], dtype=float), counts)
    counted = ends <= last_s[at]  # what follows the last token of an unfinished request is not part of its latency
    found = []
    for seconds in ([step.end_s - step.start_s for step in log.steps], [step.scheduler_s for step in log.steps]):
        weights = np.repeat(np.array(seconds, dtype=float), counts)
        found.append(np.bincount(at[counted], weights[counted], minlength=len(ids)))
    return found[0], found[1]


def _count(log: EventLog, kind: str, ids: np.ndarray) -> np.ndarray:
    noted = [note.request_id for note in log.notes if note.kind == kind]
    return np.bincount(np.searchsorted(ids, np.array(noted, dtype=np.int64)), minlength=len(ids))


def _statistics(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(STATISTICS, np.nan)
    found = np.percentile(values, [50, 95, 99])
    return {"mean": float(values.mean()), **dict(zip(STATISTICS[1:], map(float, found), strict=True))}


def _rates(log: EventLog, requests: pd.DataFrame) -> dict[str, float]:
    """Return the makespan from the first arrival to the last token, and what was served per second of it."""
    makespan = log.end_s - float(requests["arrival_s"].min())
    done = int((requests["status"] == "finished").sum())
    out = int(requests["output_tokens"].sum())
    per_second = 1 / makespan if makespan > 0 else 0.0
    return {"makespan_s": makespan, "requests_per_s": done * per_second, "output_tokens_per_s": out * per_second}


def _mixed_share(log: EventLog) -> float:
    return sum(step.shape.kind == "mixed" for step in log.steps) / max(1, len(log.steps))
