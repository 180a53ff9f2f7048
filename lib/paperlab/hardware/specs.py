"""Device, link and host specifications with the source of every figure.

The figures live in `data/hardware/*.yaml` in the units of their datasheets; here they become bytes, B/s,
FLOP/s and seconds. Loading is strict: an unknown, missing or non-positive entry is a one-line error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from paperlab.lab.paths import data_dir

_CONFIDENCES = ("datasheet", "recalled")
_DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
}
# Suffix in the file -> (suffix of the attribute, factor).
_UNITS = {
    "_GiB": ("_bytes", 2**30),
    "_MiB": ("_bytes", 2**20),
    "_GBps": ("_Bps", 1e9),
    "_TFLOP_per_s": ("_flops_per_s", 1e12),
    "_us": ("_s", 1e-6),
}


@dataclass(frozen=True)
class Provenance:
    """Where a figure comes from: a known figure of the named document (`datasheet`) or less sure (`recalled`)."""

    source: str
    confidence: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise ValueError(f"source is {self.source!r}; name the document the figures come from")
        if self.confidence not in _CONFIDENCES:
            raise ValueError(f"confidence is {self.confidence!r}; write one of {', '.join(_CONFIDENCES)}")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What all specifications share: a name, a source, and positive figures."""

    name: str
    source: str
    confidence: str
    exceptions: Mapping[str, Provenance] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        Provenance(self.source, self.confidence)
        known = {f.name for f in fields(self)}
        if unknown := set(self.exceptions) - known:
            raise ValueError(f"exceptions name {sorted(unknown)}; known figures: {', '.join(sorted(known))}")
        for f in fields(self):
            _check_figure(f.name, str(f.type), getattr(self, f.name))

    def provenance(self, figure: str) -> Provenance:
        """Return where `figure` (an attribute's name) comes from."""
        if figure not in {f.name for f in fields(self)}:
            raise ValueError(f"{self.name} has no figure {figure!r}")
        return self.exceptions.get(figure, Provenance(self.source, self.confidence))


@dataclass(frozen=True, kw_only=True)
class DeviceSpec(Spec):
    """One accelerator.

    `peak_flops_per_s` maps a dtype to the dense peak: `fp32` on CUDA cores, the others on tensor cores that
    accumulate in fp32 (`int8`: operations per second). `bandwidth_Bps` is the peak of the device memory,
    `memory_bytes` its nominal capacity. `host_link` and `peer_link` name entries of `links()`.
    """

    cuda_name: str
    compute_capability: str
    sm_count: int
    l2_bytes: int
    memory_bytes: int
    bandwidth_Bps: float
    peak_flops_per_s: Mapping[str, float] = field(hash=False)
    tdp_W: float
    host_link: str
    peer_link: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.peak_flops_per_s or not set(self.peak_flops_per_s) <= set(_DTYPES):
            raise ValueError(f"peak has dtypes {sorted(self.peak_flops_per_s)}; known: {', '.join(_DTYPES)}")

    def peak(self, dtype: str) -> float:
        """Return the dense peak in FLOP/s for `dtype`; ValueError where the hardware does not support it."""
        if dtype not in self.peak_flops_per_s:
            known = ", ".join(self.peak_flops_per_s)
            raise ValueError(f"{self.name} has no peak for dtype {dtype!r}; it has {known}")
        return self.peak_flops_per_s[dtype]


@dataclass(frozen=True, kw_only=True)
class LinkSpec(Spec):
    """One link: raw bandwidth per direction and the latency of one small transfer."""

    bandwidth_Bps: float
    latency_s: float

    def time_s(self, size_bytes: float) -> float:
        """Return the seconds to move `size_bytes` one way: latency + size / bandwidth."""
        return self.latency_s + size_bytes / self.bandwidth_Bps


@dataclass(frozen=True, kw_only=True)
class HostSpec(Spec):
    """One machine with `device_count` equal devices; `network` names the link to other machines."""

    device: str
    device_count: int
    vcpus: int
    memory_bytes: int
    network: str


def sm_granularity(compute_capability: str) -> tuple[int, int]:
    """Return the fewest multiprocessors that CUDA's driver splits off, and the step above; `none`: a CPU's cores."""
    if compute_capability == "none":
        return 1, 1
    major = int(compute_capability.split(".")[0])
    return (8, 8) if major >= 9 else (4, 2) if major == 8 else (2, 2)


S = TypeVar("S", bound=Spec)


def devices() -> dict[str, DeviceSpec]:
    """Return all devices of `data/hardware/devices.yaml` by name."""
    return _load(DeviceSpec, data_dir() / "hardware" / "devices.yaml")


def links() -> dict[str, LinkSpec]:
    """Return all links of `data/hardware/links.yaml` by name."""
    return _load(LinkSpec, data_dir() / "hardware" / "links.yaml")


def hosts() -> dict[str, HostSpec]:
    """Return all hosts of `data/hardware/hosts.yaml` by name."""
    return _load(HostSpec, data_dir() / "hardware" / "hosts.yaml")


def device(name: str) -> DeviceSpec:
    """Return the device called `name`, or the one that CUDA reports under that name."""
    by_cuda_name = {spec.cuda_name: spec for spec in devices().values()}
    return _named({**by_cuda_name, **devices()}, name, "device")


def link(name: str) -> LinkSpec:
    """Return the link called `name`."""
    return _named(links(), name, "link")


def host(name: str) -> HostSpec:
    """Return the host called `name`."""
    return _named(hosts(), name, "host")


def _named(specs: Mapping[str, S], name: str, what: str) -> S:
    """Find `name` exactly, or as people write it: without regard to case, or as the start of one name alone."""
    if name in specs:
        return specs[name]
    alike = [spec for key, spec in specs.items() if key.lower().startswith(name.lower())]
    exact = [spec for spec in alike if spec.name.lower() == name.lower()]
    found = {spec.name: spec for spec in exact or alike}
    if len(found) != 1:
        known = ", ".join(sorted({spec.name for spec in specs.values()}))
        raise ValueError(f"{'ambiguous' if found else 'unknown'} {what} {name!r}; known: {known}")
    return next(iter(found.values()))


@cache
def _load(kind: type[S], path: Path) -> dict[str, S]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path.name}: holds {type(entries).__name__}; write one mapping of names to entries")
    return {name: _parse(kind, name, entry, path.name) for name, entry in entries.items()}


def _parse(kind: type[S], name: str, entry: Any, file: str) -> S:
    try:
        if not isinstance(entry, dict):
            raise ValueError(f"is {entry!r}; write a mapping of figures")
        values = dict(_to_si(str(key), value) for key, value in entry.items())
        known = {f.name for f in fields(kind)} - {"name"}
        required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
        if unknown := set(values) - known:
            raise ValueError(f"unknown keys {sorted(unknown)}; known: {', '.join(sorted(known))}")
        if missing := required - {"name"} - set(values):
            raise ValueError(f"missing keys {sorted(missing)}")
        return kind(name=name, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {name}: {error}") from None


def _to_si(key: str, value: Any) -> tuple[str, Any]:
    """Rename one entry to its attribute and convert its unit."""
    if key == "exceptions":
        if not isinstance(value, dict):
            raise ValueError(f"exceptions is {value!r}; write a mapping of figures to source and confidence")
        return key, {_to_si(figure, 0)[0]: Provenance(**origin) for figure, origin in value.items()}
    for suffix, (attribute_suffix, factor) in _UNITS.items():
        if key.endswith(suffix):
            attribute = key.removesuffix(suffix) + attribute_suffix
            return attribute, _scaled(key, value, factor)
    return key, value


def _scaled(key: str, value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {dtype: _scaled(f"{key}.{dtype}", figure, factor) for dtype, figure in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {value!r}; write a number")
    return int(value * factor) if isinstance(factor, int) else value * factor


def _check_figure(name: str, annotation: str, value: Any) -> None:
    if annotation == "Mapping[str, float]":
        for key, item in value.items():
            _check_figure(f"{name}.{key}", "float", item)
    elif annotation in _TYPES:
        if isinstance(value, bool) or not isinstance(value, _TYPES[annotation]):
            raise ValueError(f"{name} is {value!r}; write {annotation}")
        if isinstance(value, int | float) and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; write a positive finite number")
