"""What the paper's artifact publishes of its own runs: tuned plans, measured times and measured stage peaks."""

from __future__ import annotations

import pandas as pd

from paperlab.lab.paths import data_dir
from paperlab.mist import models
from paperlab.mist.plan import ClusterSize, Plan, StagePlan

# Iteration times of Aceso's saved plans (s, GPT with math attention) and speedups that the artifact's README states.
ACESO_L4_S = {"1.3b": 14.24, "2.7b": 22.81, "7b": 42.18, "13b": 84.74, "22b": 173.96}
README_SPEEDUPS = {  # (family, attention, size): over Megatron-LM, over DeepSpeed
    ("gpt", "flash", "1.3b"): (1.279, 1.473),
    ("gpt", "flash", "2.7b"): (1.193, 1.488),
    ("gpt", "flash", "7b"): (1.191, 1.709),
    ("llama", "flash", "1.3b"): (1.557, 1.498),
    ("llama", "flash", "2.7b"): (1.374, 1.535),
    ("llama", "flash", "7b"): (1.325, 1.730),
    ("gpt", "math", "1.3b"): (1.175, 1.418),
    ("gpt", "math", "2.7b"): (1.141, 1.384),
    ("gpt", "math", "7b"): (1.222, 2.053),
}


def released_runs() -> pd.DataFrame:
    """Return `data/mist/released_runs.csv`: one row per stage of nine runs on L4 GPUs."""
    return pd.read_csv(data_dir() / "mist" / "released_runs.csv", comment="#")


def released_plans() -> dict[tuple[str, str, str], Plan]:
    """Return the nine plans by (family, size, attention)."""
    plans = {}
    for name, rows in released_runs().groupby(["family", "size", "attention"], sort=False):
        family, size, attention = map(str, name)
        stages = tuple(
            StagePlan(
                int(row["layers"]), int(row["checkpointed"]), int(row["micro_batch"]), int(row["dp"]), 1,
                optimizer_offload=float(row["optimizer_offload"]),
            )
            for row in rows.to_dict("records")
        )  # fmt: skip
        spec = getattr(models, family)(size, seq_len=2048, attention=attention)
        first = rows.iloc[0]
        plans[family, size, attention] = Plan(
            spec, ClusterSize("l4", 1, int(first.gpus)), int(first.global_batch), int(first.accumulation), stages
        )
    return plans
