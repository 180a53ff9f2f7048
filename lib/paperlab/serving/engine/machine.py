"""The machine an engine runs on, as a `Deployment`: what a policy with a cost model learns of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from paperlab.hardware import DeviceSpec, device
from paperlab.hardware.detect import measure_cpu, this_machine
from paperlab.serving.constants import DeviceConstants, constants
from paperlab.serving.deployment import Deployment
from paperlab.serving.policy import Limits
from paperlab.transformer import ModelShape

CPU_STEP_OVERHEAD_S = 1e-3  # of an iteration in Python; a log's fit replaces it where it matters
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def this_deployment(
    shape: ModelShape, limits: Limits, block_size: int, kv_blocks: int, dtype: torch.dtype, on: torch.device
) -> Deployment:
    """Return the deployment of `shape` on this machine's device.

    A CUDA device needs an entry in `data/hardware`; a CPU is measured once per process (`measure_cpu`, fp32), and
    float64 counts as fp32 there. ValueError for an unknown CUDA device.
    """
    if on.type == "cuda":
        spec = device(torch.cuda.get_device_name(on))
        known, name = constants(spec.name), _NAMES[dtype]
    else:
        spec, known, name = processor(), _CPU_CONSTANTS, "fp32"
    tokens = kv_blocks * block_size
    return Deployment(shape, spec, known, dtype=name, limits=limits, block_size=block_size, kv_tokens=tokens)


def described(on: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Return the machine's columns of a run: device, dtype, and the class of evidence that its times are."""
    on_cuda = on.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(on) if on_cuda else this_machine().cpu,
        "dtype": str(dtype).removeprefix("torch."),
        "evidence": "measured-gpu" if on_cuda else "measured-cpu",
    }


@contextmanager
def alarm(after_s: float | None, ring: Callable[[], None]) -> Iterator[None]:
    """Call `ring` from another thread if the block takes longer than `after_s`; None: never."""
    clock = None if after_s is None else threading.Timer(after_s, ring)
    if clock is not None:
        clock.start()
    try:
        yield
    finally:
        if clock is not None:
            clock.cancel()


_CPU_CONSTANTS = DeviceConstants(
    compute_efficiency=1.0,
    memory_efficiency=1.0,
    step_overhead_s=CPU_STEP_OVERHEAD_S,
    source="peaks as measured, so full efficiency; the overhead is an assumption",
)


@cache
def processor() -> DeviceSpec:
    """Return this CPU as a device: rates measured once per process, placeholders where a CPU has no such figure."""
    machine, roofline = this_machine(), measure_cpu()
    return DeviceSpec(
        name=machine.cpu,
        cuda_name="none",
        compute_capability="none",
        sm_count=max(2, machine.cores),  # two lanes need one each, if only on paper
        l2_bytes=2**20,
        memory_bytes=int(machine.memory_bytes),
        bandwidth_Bps=roofline.bandwidth_Bps,
        peak_flops_per_s={"fp32": roofline.peak_flops_per_s},
        tdp_W=1.0,
        host_link="pcie4-x16",
        peer_link=None,
        source="measured by hardware.detect.measure_cpu; multiprocessors, cache, power and links are placeholders",
        confidence="recalled",
    )
