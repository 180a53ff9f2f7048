"""The description of this machine, with and without a driver."""

from __future__ import annotations

import json
import os

from paperlab import hardware
from paperlab.hardware import detect


def test_host_class_is_json_and_complete():
    described = json.loads(json.dumps(hardware.host_class()))
    assert set(described) == {"system", "cpu", "cores", "memory_bytes", "cuda_devices"}
    assert described["cpu"]
    assert 1 <= described["cores"] <= (os.cpu_count() or 1)
    assert described["memory_bytes"] > 2**20


def test_devices_are_read_from_the_driver(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034, 570.1'\necho 'Tesla T4, 15360, 570.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    first, second = hardware.cuda_devices()
    assert first == hardware.CudaDevice("NVIDIA L4", 23034 * 2**20, "570.1")
    assert hardware.device(second.name).name == "T4"


def test_a_broken_driver_means_no_devices(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.cuda_devices() == ()
    monkeypatch.setenv("PATH", "")
    assert hardware.cuda_devices() == ()


def test_a_control_group_without_limit_does_not_cap_memory(monkeypatch):
    monkeypatch.setattr(detect, "_memory_limit_bytes", lambda: float("inf"))
    assert hardware.this_machine().memory_bytes == detect.psutil.virtual_memory().total


def test_the_processor_is_measured():
    roof = hardware.measure_cpu(copy_bytes=2**20, matrix=64, repeats=3)
    assert roof.peak_flops_per_s > 1e6
    assert roof.bandwidth_Bps > 1e6
