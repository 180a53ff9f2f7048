"""Efficiencies from published measurements: fitted on one model's rows, reported on the other's.

`data/seesaw/layer_times.csv` holds medians of a Llama layer's kernels on A100-80GB and A40 (Vidur's profiles),
`all_reduce.csv` all-reduce times on A100 machines (likewise). Nothing is published for the A10 and the L4, nor for an
all-reduce over PCIe alone: the first take the A40's efficiencies; the second takes the share of PCIe's rate that a ring
of 4 A100s reaches whose NVLink joins pairs only. No figure of the paper enters, so all of them test the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from paperlab.hardware import Roofline, calibrate, link, relative_error
from paperlab.lab.paths import data_dir
from paperlab.seesaw.layout import layer_matrices
from paperlab.transformer import preset

# Dense fp16 peak and bandwidth of the profiled cards, NVIDIA's datasheets: A100 80GB SXM, A40.
PEAKS = {"a100": Roofline(312e12, 2039e9), "a40": Roofline(149.7e12, 696e9)}
FITTED_ON, HELD_OUT = "llama2-70b", "codellama-34b"
# Assumptions, each shown with its sensitivity in the experiments:
ATTENTION_SHARE = 0.8  # of the linear layers' FLOP/s that causal prefill attention reaches (FlashAttention-2 on A100)
STEP_OVERHEAD_S = 0.001  # host time per iteration, once per micro-batch at the first stage
PCIE_HOP_S = 10e-6  # per message of a ring: an A100 machine with NVLink pairs takes 20 us for 2 GPUs, 58 us for 4


@dataclass(frozen=True)
class Fit:
    """What a device reaches: shares of its peaks, elementwise passes, seconds per layer; and relative errors.

    The errors are those of the linear layers: mean over the fitted rows, mean and largest over the others.
    """

    compute_efficiency: float
    memory_efficiency: float
    hidden_passes: float
    ffn_passes: float
    linear_overhead_s: float
    elementwise_overhead_s: float
    fit_error: float
    held_out_error: float
    held_out_worst: float


def layer_times(device: str) -> pd.DataFrame:
    """Return a profiled device's rows with flops and bytes of the linear layers per rank, and measured seconds."""
    if device not in PEAKS:
        raise ValueError(f"no profile of {device!r}; there is one of {', '.join(PEAKS)}")
    table = pd.read_csv(data_dir() / "seesaw" / "layer_times.csv")
    table = table[table["device"] == device].reset_index(drop=True)
    weights = np.array([layer_matrices(preset(name)) for name in table["model"]]) / table["tp"]
    table["flops"], table["bytes"] = 2 * weights * table["tokens"], 2 * weights
    table["latency_s"], table["elementwise_s"] = table.pop("linear_ms") / 1e3, table.pop("elementwise_ms") / 1e3
    return table


@cache
def layer_fit(device: str) -> Fit:
    """Fit `device`'s efficiencies to the rows of `FITTED_ON` and report the error on those of `HELD_OUT`."""
    table = layer_times(device)
    seen, unseen = table[table["model"] == FITTED_ON], table[table["model"] == HELD_OUT]
    found = calibrate(seen, PEAKS[device])
    roofline = found.roofline
    hidden, ffn, launch_s = _elementwise(seen, roofline)
    error = relative_error(unseen, roofline)
    return Fit(
        roofline.compute_efficiency, roofline.memory_efficiency, hidden, ffn, roofline.overhead_s, launch_s,
        found.fit_mean_error, float(error.mean()), float(error.max()),
    )  # fmt: skip


@cache
def measured_all_reduce(system: str) -> dict[int, tuple[float, float]]:
    """Return (bus rate in B/s, latency in s) by group size, fitted to the calls of one system.

    Time = latency + 2·(n - 1)/n · bytes / bus, by least squares of relative errors.
    """
    from scipy.optimize import nnls

    table = pd.read_csv(data_dir() / "seesaw" / "all_reduce.csv")
    table = table[table["system"] == system]
    if table.empty:
        raise ValueError(f"no all-reduce times of {system!r}")
    found = {}
    for gpus in map(int, table["gpus"].unique()):
        rows = table[table["gpus"] == gpus]
        seconds = rows["median_ms"].to_numpy() / 1e3
        moved = 2 * (gpus - 1) / gpus * rows["bytes"].to_numpy()
        terms = np.stack([moved, np.ones_like(seconds)], 1) / seconds[:, None]
        (per_byte_s, latency_s), _ = nnls(terms, np.ones(len(rows)))
        found[gpus] = (float(1 / per_byte_s), float(latency_s))
    return found


def pcie_share() -> float:
    """Return the share of PCIe's raw rate that a ring reaches: 4 A100s in NVLink pairs, whose ring must cross PCIe."""
    return measured_all_reduce("a100-pairs")[4][0] / link("pcie4-x16").bandwidth_Bps


def _elementwise(rows: pd.DataFrame, roofline: Roofline) -> tuple[float, float, float]:
    """Return passes over the hidden state, passes over a rank's MLP width, and seconds per layer."""
    from scipy.optimize import nnls

    shapes = [preset(name) for name in rows["model"]]
    tokens, seconds = rows["tokens"].to_numpy(), rows["elementwise_s"].to_numpy()
    hidden_s = roofline.memory_s(2 * tokens * np.array([shape.hidden for shape in shapes]))
    ffn_s = roofline.memory_s(2 * tokens * np.array([shape.ffn for shape in shapes]) / rows["tp"].to_numpy())
    terms = np.stack([hidden_s, ffn_s, np.ones_like(seconds)], 1) / seconds[:, None]
    (hidden, ffn, launch_s), _ = nnls(terms, np.ones(len(rows)))
    return float(hidden), float(ffn), float(launch_s)
