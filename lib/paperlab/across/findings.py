"""What tables say to each claim of `data/claims/across.csv`, in its units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from paperlab.across.fleet import NEXUS, SEESAW
from paperlab.across.training import break_even

LATENCY = "normalized_latency_mean_s"


class Found(NamedTuple):
    """One finding: the claim, its value in the ledger's unit, and a note."""

    claim_id: str
    value: float | bool
    note: str = ""


def bytes_findings(check: pd.DataFrame) -> Iterator[Found]:
    """Yield X-01 from `table_bytes_check`: the ratio that is farthest from 1."""
    ratio = (check.traced_bytes / check.measured_bytes).to_numpy()
    yield Found("X-01", float(ratio[np.abs(ratio - 1).argmax()]), f"{len(check)} blocks")


def layer_findings(layers: pd.DataFrame) -> Iterator[Found]:
    """Yield X-02 and X-03 from `exhibit_layer_bytes`."""
    share = layers.set_index(["family", "attention"]).saved_share
    gpt: Any = share["gpt"]
    note = ""
    if "math" in gpt:
        note = f"{100 * gpt['math'].min():.1f} to {100 * gpt['math'].max():.1f} % beside attention that keeps its map"
    yield Found("X-02", 100 * float(gpt["flash"].min()), note)
    if "llama" in share:
        yield Found("X-03", 100 * float(share["llama"].min()))


def plan_findings(plans: pd.DataFrame) -> Iterator[Found]:
    """Yield X-04 to X-07 from `exhibit_plans`."""
    tempo = plans[plans.operators == "Tempo"]
    mist = tempo[tempo.planner == "Mist"].dropna(subset="gain")
    best: Any = mist.iloc[int(mist.gain.argmax())]
    worst: Any = mist.iloc[int(mist.gain.argmin())]
    yield Found("X-04", float(best.gain), f"{best['size']} on {best.cluster}, {best.attention}")
    yield Found("X-05", float(worst.gain), f"{worst['size']} on {worst.cluster}, {worst.attention}; one may keep plain")
    keys = ["cluster", "size", "seq_len", "attention"]
    columns = ["plan", "checkpointed", "optimizer_offload", "activation_offload"]
    of_mist = plans[plans.planner == "Mist"].set_index(keys)
    plain, other = (of_mist[of_mist.operators == arm][columns] for arm in ("plain", "Tempo"))
    changed = (plain != other.loc[plain.index]).any(axis=1)
    shape = (plain.plan != other.loc[plain.index].plan).mean()
    yield Found(
        "X-06", 100 * float(changed.mean()), f"parallelism or micro-batch in {100 * shape:.0f} %, the rest memory"
    )
    means = {planner: float(np.exp(np.log(part.gain).mean())) for planner, part in tempo.dropna().groupby("planner")}
    note = ", ".join(f"{planner!s} {value:.3f}x" for planner, value in means.items())
    yield Found("X-07", means["Mist"] < means["Megatron-LM-like"], note)


def memory_findings(swept: pd.DataFrame) -> Iterator[Found]:
    """Yield X-08 and X-09 from `exhibit_overhead`, whose rows without overhead are the sweep of memory."""
    found = break_even(swept[swept.planner == "Mist"])
    best: Any = found.iloc[int(found.gain_without_overhead.argmax())]
    edge = 100 * float(best.break_even_overhead)
    beyond = ", extrapolated" if edge > 100 * swept.overhead.max() else ""
    yield Found(
        "X-08",
        edge,
        f"at {best.capacity_GiB:g} GiB per GPU{beyond}; median {100 * found.break_even_overhead.median():.1f} %",
    )
    yield Found("X-09", float(best.gain_without_overhead), f"at {best.capacity_GiB:g} GiB per GPU")


def price_findings(prices: pd.DataFrame) -> Iterator[Found]:
    """Yield X-11 from `table_prices`."""
    alone = 100 * prices.constants_difference.abs().max()
    yield Found("X-11", 100 * float(prices.difference.abs().max()), f"{alone:.0f} % by the core's constants alone")


def contest_findings(loads: pd.DataFrame, offline: pd.DataFrame) -> Iterator[Found]:
    """Yield X-12 to X-18 from `exhibit_loads` and `exhibit_offline`; means over seeds."""
    rate: Any = offline.groupby(["model", "system"]).requests_per_s.agg(["mean", "min", "max"])
    for claim, model in (("X-12", "codellama-34b"), ("X-13", "llama3.1-8b")):
        pair, ours = rate.loc[(model, SEESAW)], rate.loc[(model, NEXUS)]
        spread = (
            f"Seesaw {pair['min']:.3f} to {pair['max']:.3f}, Nexus {ours['min']:.3f} to {ours['max']:.3f} requests/s"
        )
        yield Found(claim, float(pair["mean"] / ours["mean"]), spread)
    metrics = ["ttft_mean_s", "tbt_p95_s", "tbt_p99_s", LATENCY]
    mean: Any = loads.groupby(["model", "load", "system"])[metrics].mean()
    low = float(loads.load.min())
    models = list(dict.fromkeys(loads.model))
    for claim, metric in (("X-14", "ttft_mean_s"), ("X-15", "tbt_p95_s")):
        ratios = {m: mean.loc[(m, low, SEESAW), metric] / mean.loc[(m, low, NEXUS), metric] for m in models}
        note = ", ".join(f"{name} {value:.2f}x" for name, value in ratios.items())
        if metric == "tbt_p95_s":
            p99 = loads.groupby(["model", "load", "system"]).tbt_p99_s.mean()
            top = float(loads.load.max())
            note += "; P99 at the highest load " + ", ".join(
                f"{p99[m, top, SEESAW] / p99[m, top, NEXUS]:.1f}x" for m in models
            )
        yield Found(claim, float(min(ratios.values())), note)
    ahead = {model: _nexus_ahead(mean.loc[model][LATENCY]) for model in models}
    note = "; ".join(
        f"{model}: Nexus ahead at {', '.join(map(str, loads_)) or 'none'}" for model, loads_ in ahead.items()
    )
    every = sorted(set(loads.load))
    big, small = ahead["codellama-34b"], ahead["llama3.1-8b"]
    yield Found("X-16", low in big and every[-1] not in big, note)
    yield Found("X-17", set(small) == set(every), note)
    beaten = {m: mean.loc[(m, low), "tbt_p95_s"].min() / mean.loc[(m, low, NEXUS), "tbt_p95_s"] for m in models}
    worst = min(beaten.values())
    yield Found("X-18", bool(worst >= 0.9), ", ".join(f"{m}: best over Nexus {v:.2f}x" for m, v in beaten.items()))


def _nexus_ahead(latency: Any) -> list[float]:
    table = latency.unstack("system")
    return [float(load) for load in table.index[table[NEXUS] < table[SEESAW]]]


def capacity_findings(capacity: pd.DataFrame) -> Iterator[Found]:
    """Yield X-21 from `exhibit_capacity`."""
    tokens = capacity.set_index(["w_bits", "kv_bits"]).kv_tokens
    yield Found("X-21", float(tokens[4, 16] / tokens[16, 16]), f"{tokens[16, 16]:,} and {tokens[4, 16]:,} tokens")


def bits_findings(offline: pd.DataFrame, low: pd.DataFrame) -> Iterator[Found]:
    """Yield X-22 to X-25 from `exhibit_bits` and `exhibit_bits_latency`."""
    rate = offline[offline.arithmetic == "fp16"].groupby(["w_bits", "kv_bits"]).requests_per_s.mean()
    yield Found("X-22", float(rate[4, 4] / rate[16, 16]))
    slow = low.groupby(["w_bits", "kv_bits"])[["ttft_mean_s", "tbt_mean_s"]].mean()
    yield Found("X-23", float(slow.tbt_mean_s[4, 16] / slow.tbt_mean_s[16, 16]))
    ttft = float(slow.ttft_mean_s[16, 16] / slow.ttft_mean_s[4, 4])
    yield Found("X-24", ttft, "prompts of a few hundred tokens also wait for the weights")
    cache, weights = rate[16, 8] / rate[16, 16], rate[8, 16] / rate[16, 16]
    yield Found("X-25", bool(cache > weights), f"8-bit cache {cache:.2f}x, 8-bit weights {weights:.2f}x")
