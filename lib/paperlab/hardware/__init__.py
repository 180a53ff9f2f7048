"""Device, link and host specifications, rooflines, and calibration against measured rows; free of torch.

| module | what it holds |
|---|---|
| `specs` | `device("L4")`, `link("pcie4-x16")`, `host("aws-g6.48xlarge")`, with the source of every figure |
| `roofline` | `Roofline`: least time of an operation from its FLOPs and bytes, ridge point, which side binds |
| `calibrate` | `calibrate(rows, roofline)`: efficiencies and overhead from measurements, with held-out error |
| `detect` | `host_class()` for manifests, `measure_cpu()` |
"""

from paperlab.hardware.calibrate import Calibration, calibrate, relative_error
from paperlab.hardware.detect import CudaDevice, Machine, cuda_devices, host_class, measure_cpu, this_machine
from paperlab.hardware.roofline import Roofline
from paperlab.hardware.specs import (
    DeviceSpec,
    HostSpec,
    LinkSpec,
    Provenance,
    device,
    devices,
    host,
    hosts,
    link,
    links,
    sm_granularity,
)

__all__ = [
    "Calibration",
    "CudaDevice",
    "DeviceSpec",
    "HostSpec",
    "LinkSpec",
    "Machine",
    "Provenance",
    "Roofline",
    "calibrate",
    "cuda_devices",
    "device",
    "devices",
    "host",
    "host_class",
    "hosts",
    "link",
    "links",
    "measure_cpu",
    "relative_error",
    "sm_granularity",
    "this_machine",
]
