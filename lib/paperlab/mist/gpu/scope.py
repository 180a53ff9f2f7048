"""How much a GPU run of Mist measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from paperlab.mist.models import Attention, ModelSpec, gpt, llama
from paperlab.mist.plan import ClusterSize, Plan, StagePlan

GB = 1e9


@dataclass(frozen=True)
class Capped:
    """A family of one-GPU plans under a memory cap: all fields of the stage but how many layers are checkpointed."""

    cap_bytes: float
    spec: ModelSpec
    micro_batch: int
    accumulation: int = 2
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A cell's name."""
        ratios = " ".join(f"{name[0]}o{value:g}" for name, value in self.ratios.items())
        where = f"{self.cap_bytes / GB:g} GB" if self.cap_bytes >= GB else f"{self.cap_bytes / 2**20:g} MiB"
        return f"{where}, {self.spec.name}, {self.spec.attention}, b{self.micro_batch} {ratios}".strip()

    def plan(self, checkpointed: int) -> Plan:
        """Return the plan that checkpoints so many layers."""
        stage = replace(StagePlan(self.spec.layers, checkpointed, self.micro_batch, 1, 1), **self.ratios)  # type: ignore[arg-type]
        batch = self.micro_batch * self.accumulation
        return Plan(self.spec, ClusterSize("one GPU", 1, 1), batch, self.accumulation, (stage,))


@dataclass(frozen=True)
class Scope:
    """Models and tensor-parallel sizes of the operator table, batches, plans under caps, and repeats of timings."""

    models: tuple[ModelSpec, ...]
    tp_sizes: tuple[int, ...]
    batches: tuple[int, ...]
    capped: tuple[Capped, ...]
    levels: tuple[int, ...]  # durations of interfering operations, in units of 3 ms
    repeats: int


FAMILIES: tuple[tuple[Callable[..., ModelSpec], Attention], ...] = ((gpt, "flash"), (gpt, "math"), (llama, "flash"))


def _capped(cap_GB: float, size: str, attention: Any, batch: int, **ratios: float) -> Capped:
    return Capped(cap_GB * GB, gpt(size, seq_len=2048, attention=attention), batch, ratios=ratios)


FULL = Scope(
    models=tuple(
        family(size, seq_len=2048, attention=attention)
        for size in ("1.3b", "2.7b", "7b", "13b", "22b")
        for family, attention in FAMILIES
    ),
    tp_sizes=(1, 2, 4, 8),
    batches=(1, 2, 4, 8),
    capped=(
        _capped(24, "1.3b", "flash", 1), _capped(24, "1.3b", "math", 1), _capped(24, "1.3b", "flash", 2),
        _capped(24, "1.3b", "flash", 2, optimizer_offload=0.5),
        _capped(24, "1.3b", "flash", 4, optimizer_offload=1.0, activation_offload=0.5),
        _capped(24, "1.3b", "flash", 4, grad_offload=0.5, weight_offload=0.5, optimizer_offload=1.0),
        _capped(40, "1.3b", "flash", 8), _capped(40, "1.3b", "math", 4),
        _capped(40, "2.7b", "flash", 2, optimizer_offload=0.5),
        _capped(40, "2.7b", "flash", 4, optimizer_offload=1.0, activation_offload=0.25),
    ),
    levels=(0, 1, 2, 3, 4),
    repeats=9,
)  # fmt: skip


def smoke() -> Scope:
    """Return the rehearsal: tiny models through every stage, on any machine."""
    sizes: dict[str, Any] = {"hidden": 64, "layers": 4, "heads": 4, "vocab": 128, "seq_len": 32, "dtype": "fp32"}
    flash, math = gpt(**sizes), gpt(**sizes, attention="math")
    capped = (Capped(5.1 * 2**20, flash, 2), Capped(4.1 * 2**20, flash, 2, ratios={"optimizer_offload": 0.5}))
    return Scope((flash, math, llama(**sizes, ffn=192)), (1, 2), (1, 2), capped, (0, 1), 2)
