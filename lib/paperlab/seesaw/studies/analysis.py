"""What follows from the cost analysis alone: Tables 1-3, Figs. 1, 4, 9 and 15, and how well the rates are known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from paperlab.hardware import device, measure_cpu, this_machine
from paperlab.seesaw import calibration
from paperlab.seesaw.cost import Uniform, components, demand, max_batch
from paperlab.seesaw.disaggregation import decode_rate, multiplexed_rate, prefill_rate, splits
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.seesaw.studies.published import SPECIFICATIONS
from paperlab.seesaw.workloads import PAPER_REQUESTS, workload
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

GIB, GIGA, TERA = 2**30, 1e9, 1e12

NOTATION = (
    ("N", "output tokens of a request", "Request.output_tokens"),
    ("r", "requests", "len(Workload)"),
    ("b", "sequences in flight on the whole cluster", "Uniform.batch"),
    ("s", "mean tokens of a sequence", "Uniform.length"),
    ("h_q", "query heads", "ModelShape.heads"),
    ("h_kv", "key/value heads", "ModelShape.kv_heads"),
    ("d", "size of a head", "ModelShape.head_dim"),
    ("L", "layers", "ModelShape.layers"),
    ("W", "parameters of a layer", "layout.layer_matrices(model)"),
    ("PP", "pipeline stages", "Layout.pp"),
    ("DP", "replicas", "Layout.dp"),
    ("TP", "tensor-parallel ranks of a stage", "Layout.tp"),
    ("T_dm^linear", "time to move a layer's weights", "Components.linear_move_s"),
    ("T_comp^linear", "arithmetic of linear layers", "Components.linear_compute_s"),
    ("T_dm^attn", "time to move keys and values", "Components.attention_move_s"),
    ("T_comp^attn", "arithmetic of attention", "Components.attention_compute_s"),
    ("T_nw", "all-reduces of a layer", "Components.network_s"),
)

FORMULAS = {
    "prefill": ("2·W", "2·b·s·W", "2·b·s·(h_q + 2·h_kv)·d", "2·b·h_q·s²·d", "4·b·s·h_q·d"),
    "decode": ("2·W", "2·b·W", "4·b·s·h_kv·d", "4·b·h_q·s·d", "4·b·h_q·d"),
}
DIVISORS = ("HBM bandwidth", "FLOP/s", "HBM bandwidth", "FLOP/s", "all-reduce bandwidth at TP")


def specifications() -> pd.DataFrame:
    """Return Table 1 beside the figures of `data/hardware`, which the models use."""
    rows = []
    for name, (memory, bandwidth, flops, nvlink) in SPECIFICATIONS.items():
        spec = device(name)
        rows.append((name, spec.memory_bytes / GIB, memory, spec.bandwidth_Bps / GIGA, bandwidth,
                     spec.peak("fp16") / TERA, flops, bool(spec.peer_link), nvlink))  # fmt: skip
    columns = ["device", "memory_GiB", "paper_memory_GiB", "bandwidth_GBps", "paper_bandwidth", "fp16_TFLOP_per_s",
               "paper_TFLOP_per_s", "nvlink", "paper_nvlink"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def this_machines_row() -> pd.DataFrame:
    """Return the same figures of this machine's processor, measured (fp32)."""
    machine, measured = this_machine(), measure_cpu()
    row = (machine.cpu, machine.cores, machine.memory_bytes / GIB, measured.bandwidth_Bps / GIGA,
           measured.peak_flops_per_s / TERA)  # fmt: skip
    return pd.DataFrame([row], columns=["device", "cores", "memory_GiB", "bandwidth_GBps", "fp32_TFLOP_per_s"])


def formulas(
    model: str = "llama2-70b", on: str = "A10", batch: int = 32, length: int = 2048, tp: int = 4
) -> pd.DataFrame:
    """Return Table 3: each component's formula, and its value in one example."""
    shape, rates, rows = preset(model), node(on), []
    for phase, texts in FORMULAS.items():
        work = Uniform(phase, batch, length)
        values = zip(components(shape, rates, work, tp), demand(shape, work), strict=True)
        names = (name for _, _, name in NOTATION[-5:])
        for text, divisor, (seconds, amount), name in zip(texts, DIVISORS, _in_order(values), names, strict=True):
            rows.append((phase, name.split(".")[1].removesuffix("_s"), text, divisor, amount, 1e3 * seconds))
    columns = ["phase", "component", "bytes_or_flops", "divided_by", "amount_of_example", "milliseconds_of_example"]
    return pd.DataFrame(rows, columns=columns)


def _in_order(pairs: Any) -> list[tuple[float, float]]:
    return list(pairs)


def breakdown(prompt: int = 1024, batch: int = 16) -> pd.DataFrame:
    """Return Fig. 1: shares of communication, compute and weight transfer of LLaMA2-13B on 8 L4s, by layout.

    The prompt's length is our choice; the paper does not state it. `seconds` are those of one global batch of 16 with
    16/PP sequences per micro-batch; `normalized` is over the slowest layout of the phase.
    """
    model, rates, rows = preset("llama2-13b"), node("L4"), []
    for text in ("P8", "T2P4", "T4P2", "T8"):
        layout = Layout.parse(text)
        prices = Prices(model, layout, rates)
        micro = batch // layout.pp
        for phase, step in (
            ("prefill", StepShape(micro * prompt, 0, micro * prompt * (prompt + 1) // 2, logits=micro)),
            ("decode", StepShape(0, 0, 0, micro, micro * prompt, micro)),
        ):
            layer, times = prices.layer(step), prices.layers[0] * layout.pp
            parts = {
                "communication": layer.network,
                "compute": layer.compute + layer.attention + layer.elementwise + layer.overhead,
                "weight transfer": layer.weights,
            }
            rows += [
                (phase, f"TP{layout.tp} PP{layout.pp}", layout.tp, part, seconds * times)
                for part, seconds in parts.items()
            ]
    frame = pd.DataFrame(rows, columns=["phase", "layout", "tp", "part", "seconds"])
    total = frame.groupby(["phase", "layout"])["seconds"].transform("sum")
    slowest = total.groupby(frame["phase"]).transform("max")
    return frame.assign(normalized=frame["seconds"] / slowest, share=frame["seconds"] / total)


def disaggregation(
    lengths: tuple[tuple[int, int], ...] = ((2588, 291), (512, 512), (378, 419), (1000, 1000)),
) -> pd.DataFrame:
    """Return Fig. 4: rates of LLaMA2-70B on 4 and 8 A100-40GB, for workloads and interconnects.

    The paper's workload is not stated; the lengths are those of its two workloads and two even ones.
    """
    model, rows = preset("llama2-70b"), []
    for kind in ("nvlink", "pcie"):
        rates = node("A100-SXM-40GB", kind)
        for prompt, output in lengths:
            (split,) = [item for item in splits(model, rates, 8, prompt, output) if item.prefill.gpus == 4]
            whole = decode_rate(model, rates, 8, prompt, output)
            rows.append((kind, prompt, output, split.prefill.requests_per_s, split.decode.requests_per_s,
                         whole.requests_per_s, prefill_rate(model, rates, 8, prompt).requests_per_s, split.mismatch,
                         split.decode.requests_per_s / whole.requests_per_s,
                         multiplexed_rate(model, rates, 8, prompt, output) / split.requests_per_s))  # fmt: skip
    columns = ["interconnect", "prompt_tokens", "output_tokens", "prefill_4", "decode_4", "decode_8", "prefill_8",
               "mismatch", "decode_4_over_8", "multiplexed_over_disaggregated"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def densities(requests: int, seed: int) -> pd.DataFrame:
    """Return Fig. 9: density of prompt and output lengths in bins of 128 tokens."""
    rows = []
    for name in PAPER_REQUESTS:
        drawn = workload(name, requests, seed).requests
        for side in ("prompt", "output"):
            counts = Counter(getattr(item, f"{side}_tokens") // 128 for item in drawn)
            for index, count in sorted(counts.items()):
                rows.append((name, side, 128 * index + 64, count / requests / 128))
    return pd.DataFrame(rows, columns=["workload", "side", "tokens", "density"])


def replicas(model: str = "llama2-13b", on: str = "L4", length: int = 1000) -> pd.DataFrame:
    """Return Fig. 15: seconds of one decode step per sequence by cause, and the batch that fits, against DP.

    Model, GPU and lengths are our choice: one that runs out of memory at DP 8 alone, as in the figure.
    """
    shape, rates, rows = preset(model), node(on), []
    for dp in (8, 4, 2, 1):
        layout = Layout(dp, 8 // dp, 1)
        batch = dp * max(0, kv_tokens(shape, rates, layout) // length)
        row = {"layout": f"TP{layout.tp} DP{dp}", "dp": dp, "batch": batch, "runs_out_of_memory": batch < dp,
               "equation_bound": max_batch(shape, layout, rates.usable_bytes, length)}  # fmt: skip
        if batch >= dp:
            per = batch // dp
            layer = Prices(shape, layout, rates).layer(StepShape(0, 0, 0, per, per * length, per))
            scale = 1e3 * shape.layers / batch
            row |= {"load_weights_ms": layer.weights * scale, "all_reduce_ms": layer.network * scale}
            row["compute_ms"] = (layer.total - layer.weights - layer.network) * scale
        rows.append(row)
    return pd.DataFrame(rows)


def fits() -> pd.DataFrame:
    """Return the fitted efficiencies of the profiled GPUs and their errors on the rows left out."""
    rows = []
    for name in calibration.PEAKS:
        fit = calibration.layer_fit(name)
        stands_for = [name.upper()] if name == "a100" else ["A40", *sorted(_stands_for(name))]
        rows.append({"profile": name, "stands_for": ", ".join(stands_for), "fitted_on": calibration.FITTED_ON,
                     "held_out": calibration.HELD_OUT, **fit.__dict__})  # fmt: skip
    return pd.DataFrame(rows)


def _stands_for(profile: str) -> list[str]:
    from paperlab.seesaw.hardware import PROFILE_OF

    return [name for name, of in PROFILE_OF.items() if of == profile]


def layer_predictions() -> pd.DataFrame:
    """Return measured and predicted seconds of every profiled layer's linear part, fitted and held-out rows apart."""
    frames = []
    for name, peaks in calibration.PEAKS.items():
        table, fit = calibration.layer_times(name), calibration.layer_fit(name)
        compute = table["flops"] / peaks.peak_flops_per_s / fit.compute_efficiency
        memory = table["bytes"] / peaks.bandwidth_Bps / fit.memory_efficiency
        predicted = fit.linear_overhead_s + pd.concat([compute, memory], axis=1).max(axis=1)
        frames.append(
            table.assign(
                predicted_s=predicted, rows=table["model"].map({calibration.FITTED_ON: "fitted"}).fillna("held out")
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    return frame[["device", "model", "rows", "tp", "tokens", "latency_s", "predicted_s"]]


def all_reduce_rates() -> pd.DataFrame:
    """Return bus rate, algorithm bandwidth and latency by system and group size: measured fits, and what nodes use."""
    rows: list[tuple[str, int, float, float, float, str]] = []
    for system in ("a100-dgx", "a100-pairs"):
        for gpus, (bus, latency) in calibration.measured_all_reduce(system).items():
            rows.append((system, gpus, bus / GIGA, bus * gpus / (2 * (gpus - 1)) / GIGA, 1e6 * latency, "measured"))
    for on in (node("A10"), node("A100-SXM-40GB", "pcie")):
        for gpus in (2, 4, 8):
            rate, algorithm = on.all_reduce.bus_Bps[gpus], on.all_reduce.algorithm_Bps(gpus)
            rows.append((on.name, gpus, rate / GIGA, algorithm / GIGA, 1e6 * on.all_reduce.call_s(gpus), "derived"))
    columns = ["system", "gpus", "bus_GBps", "algorithm_GBps", "latency_us", "origin"]
    return pd.DataFrame(rows, columns=columns)


def rates(on: Node) -> dict[str, float]:
    """Return a node's reachable rates for people."""
    return {
        "linear_TFLOP_per_s": on.linear_flops_per_s / TERA, "memory_GBps": on.memory_Bps / GIGA,
        "all_reduce_8_GBps": on.all_reduce.algorithm_Bps(8) / GIGA, "host_GBps": on.host_Bps / GIGA,
    }  # fmt: skip
