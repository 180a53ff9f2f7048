"""What this machine is: a light description for manifests, and a measured roofline of its processor."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from paperlab.hardware.roofline import Roofline


@dataclass(frozen=True)
class CudaDevice:
    """One CUDA device as the driver names it."""

    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True)
class Machine:
    """The host class of a run: results of equal classes may be compared."""

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    cuda_devices: tuple[CudaDevice, ...]


def this_machine() -> Machine:
    """Describe this machine without importing torch.

    `cores` are those this process may use, `memory_bytes` what its control group allows.
    """
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_model(),
        cores=_usable_cores(),
        memory_bytes=min(psutil.virtual_memory().total, _memory_limit_bytes()),
        cuda_devices=cuda_devices(),
    )


def host_class() -> dict[str, Any]:
    """Return `this_machine()` as plain JSON types, for manifests."""
    machine = asdict(this_machine())
    return machine | {"cuda_devices": list(machine["cuda_devices"])}


def cuda_devices() -> tuple[CudaDevice, ...]:
    """Return the CUDA devices that the driver's `nvidia-smi` lists; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_parse_device(line) for line in answer.splitlines() if line.strip())


def measure_cpu(copy_bytes: int = 64 * 2**20, matrix: int = 768, repeats: int = 5) -> Roofline:
    """Measure this processor: NumPy's fp32 matrix product and a copy of an array larger than its caches.

    A copy of n bytes counts as 2n bytes of traffic. Evidence class `measured-cpu`; medians of `repeats`.
    """
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, matrix, matrix), dtype=np.float32)
    source = np.zeros(copy_bytes, dtype=np.uint8)
    target = np.ones_like(source)
    matmul_s = _median_s(lambda: a @ b, repeats)
    copy_s = _median_s(lambda: np.copyto(target, source), repeats)
    return Roofline(2 * matrix**3 / matmul_s, 2 * copy_bytes / copy_s)


def _median_s(action: Callable[[], Any], repeats: int) -> float:
    action()  # the first run pays for page faults and thread start-up
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _parse_device(line: str) -> CudaDevice:
    name, memory_MiB, driver = (part.strip() for part in line.rsplit(",", 2))
    return CudaDevice(name, int(memory_MiB) * 2**20, driver)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_limit_bytes() -> float:
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.exists() else "max"
    return float("inf") if text == "max" else int(text)
