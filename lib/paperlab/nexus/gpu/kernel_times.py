"""The time of an iteration by class of kernel, from torch's profiler. It has not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Parts of the names of kernels (cuBLAS and CUTLASS products, ours) and, on a CPU, of operators.
CLASSES = {
    "linear": ("gemm", "cutlass", "nvjet", "xmma", "splitk", "aten::mm", "aten::addmm"),
    "attention": ("_attend", "_join", "flash", "fmha", "aten::bmm", "scaled_dot", "index_select"),
}


def kernel_seconds(action: Callable[[], Any], device: str, repeats: int = 3) -> dict[str, float]:
    """Return the seconds of one run of `action` by class: linear, attention, other; warmed up, the mean of `repeats`.

    Kernels on a GPU; on a CPU what operators take themselves.

    Raises:
        RuntimeError: the profiler saw no kernel.
    """
    on_gpu = device == "cuda"
    for _ in range(2):
        action()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        for _ in range(repeats):
            action()
        if on_gpu:
            torch.cuda.synchronize()
    found = dict.fromkeys((*CLASSES, "other"), 0.0)
    for item in trace.key_averages():
        if on_gpu and item.device_type != DeviceType.CUDA:
            continue  # an operator's entry counts its kernels once more
        spent_us = item.self_device_time_total if on_gpu else item.self_cpu_time_total
        found[kernel_class(item.key)] += spent_us / 1e6 / repeats
    if not sum(found.values()):
        raise RuntimeError("the profiler saw no kernels")
    return found


def kernel_class(name: str) -> str:
    """Return `linear`, `attention` or `other` for a kernel's name."""
    lowered = name.lower()
    return next((kind for kind, parts in CLASSES.items() if any(part in lowered for part in parts)), "other")
