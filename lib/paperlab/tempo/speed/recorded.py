"""What GPU runs left behind (`paperlab.tempo.gpu_evidence`), read back, and the numbers that the claims ask for.

A run's tables lie in `results/<device>/tempo_gpu/`. The claims compare with the paper's baseline, which kept the input
of softmax; against today's stronger baseline the numbers stand in the note.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from paperlab.lab import tables
from paperlab.lab.paths import results_dir
from paperlab.tempo.speed.throughput import BASELINE, OK

FOLDER = "tempo_gpu"
ERA = "eager, paper era"
_COLUMNS = ["claim_id", "value", "unit", "note", "device", "evidence"]
_SAME = ["device", "model", "seq_len", "precision", "card"]


def read(stage: str) -> pd.DataFrame:
    """Return a stage's measured rows of all devices; empty where no run is stored."""
    files = sorted(results_dir().glob(f"*/{FOLDER}/{stage}.csv"))
    found = [tables.read_csv(path.read_text()) for path in files]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def claim_values() -> pd.DataFrame:
    """Return what stored GPU runs say to the claims: claim_id, value, unit, note, device, evidence; maybe no rows.

    T-01: best ratio of largest batches. T-02 to T-04: best gain in throughput, each arm at its largest batch, in fp32
    with and without TF32. T-05: time that checkpointing adds to a step at one batch size.
    """
    makers: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = [
        ("largest_batch", _batch_claim),
        ("at_largest_batch", _throughput_claims),
        ("one_batch", _checkpoint_claim),
    ]
    rows = [make(table) for stage, make in makers if not (table := read(stage)).empty]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=_COLUMNS)


def _side_by_side(table: pd.DataFrame, value: str, over: str) -> pd.DataFrame:
    """Return Tempo's `value` over that of arm `over`, a row per setting in which both were measured."""
    wide = table.pivot_table(index=_SAME, columns="arm", values=value)
    if not {"Tempo", over} <= set(wide.columns):
        return pd.DataFrame(columns=[*_SAME, "ratio"])
    ratio = (wide["Tempo"] / wide[over]).dropna().rename("ratio")
    return ratio[ratio < float("inf")].reset_index()


def _best(claim_id: str, table: pd.DataFrame, value: str, over: str, percent: bool) -> pd.DataFrame:
    ours, modern = (_side_by_side(table, value, arm) for arm in (over, BASELINE))
    if ours.empty:
        return pd.DataFrame(columns=_COLUMNS)
    best = ours.sort_values("ratio").iloc[-1]
    unit = "%" if percent else "x"

    def number(ratio: float) -> float:
        return 100 * (ratio - 1) if percent else ratio

    note = (
        f"best of {len(ours)} settings on {best.device}: {best.model}, S = {best.seq_len}, {best.precision}, cap of "
        f"{best.card}; worst {number(ours.ratio.min()):.3g} {unit}; against a modern baseline "
        f"{number(modern.ratio.min()):.3g} to {number(modern.ratio.max()):.3g} {unit}"
    )
    row = (claim_id, number(best.ratio), unit, note, best.device, "measured-gpu")
    return pd.DataFrame([row], columns=_COLUMNS)


def _batch_claim(table: pd.DataFrame) -> pd.DataFrame:
    bert = table[(table.model == "BERT-Large") & (table.precision == "fp32")]
    return _best("T-01", bert, "measured_batch", ERA, percent=False)


def _throughput_claims(table: pd.DataFrame) -> pd.DataFrame:
    fp32 = table[(table.status == OK) & table.precision.isin(["fp32", "tf32"])]
    # GPT-2 is not measured in the paper's era; its modern baseline keeps the Python GELU of its day.
    claims = (("T-02", "BERT-Large", ERA), ("T-03", "GPT-2", BASELINE), ("T-04", "RoBERTa-Large", ERA))
    rows = [_best(claim, fp32[fp32.model == model], "sequences_per_s", over, True) for claim, model, over in claims]
    return pd.concat(rows, ignore_index=True)


def _checkpoint_claim(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[(table.arm == "checkpoint") & (table.status == OK) & (table.model == "BERT-Large")]
    if rows.empty:
        return pd.DataFrame(columns=_COLUMNS)
    percent = 100 * rows.overhead
    note = f"median of {len(rows)} settings at one batch size, {percent.min():.3g} to {percent.max():.3g} %"
    row = ("T-05", percent.median(), "%", note, rows.device.iloc[0], "measured-gpu")
    return pd.DataFrame([row], columns=_COLUMNS)
