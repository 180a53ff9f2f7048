"""What the tuner may choose (§2.1), how many choices that makes (§2.11), and the candidates of its outer loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.setting import Policies, Setting
from paperlab.mist.models import ModelSpec

COARSE = (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)  # ratios of weights and gradients
FINE = (0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)  # of optimizer states and activations
_NONE = (0.0,)


@dataclass(frozen=True)
class Space:
    """Choices of one tuner run.

    checkpointing: "free" tries every number of checkpointed layers, "full" all of them, "none" none.
    zero: ZeRO levels; above 1 only where dp > 1. *_ratios: offload ratios to try.
    layer_window: how far a stage's layers may be from an even split. stages: allowed pipeline depths, or all.
    imbalance: whether the objective knows that first and last micro-batches differ (else d is averaged over G).
    """

    checkpointing: str = "free"
    zero: tuple[int, ...] = (1, 2, 3)
    weight_ratios: tuple[float, ...] = COARSE
    grad_ratios: tuple[float, ...] = COARSE
    optimizer_ratios: tuple[float, ...] = FINE
    activation_ratios: tuple[float, ...] = FINE
    micro_batches: tuple[int, ...] = (1, 2, 4)
    tp_sizes: tuple[int, ...] = (1, 2, 4, 8)
    stages: tuple[int, ...] | None = None
    layer_window: int = 2
    imbalance: bool = True

    def __post_init__(self) -> None:
        if self.checkpointing not in ("free", "full", "none"):
            raise ValueError(f"checkpointing is {self.checkpointing!r}; choose free, full or none")
        if not self.zero or not set(self.zero) <= {0, 1, 2, 3}:
            raise ValueError(f"zero is {self.zero}; list levels from 0 to 3")
        for name in ("weight_ratios", "grad_ratios", "optimizer_ratios", "activation_ratios"):
            values = getattr(self, name)
            if not values or not all(0 <= value <= 1 for value in values):
                raise ValueError(f"{name} is {values}; list fractions from 0 to 1")
        if min(*self.micro_batches, *self.tp_sizes, 1) < 1 or self.layer_window < 0:
            raise ValueError("micro_batches and tp_sizes must be positive, layer_window not negative")

    def offloads(self) -> list[tuple[float, float, float, float]]:
        """Return all offload combinations; weights are not offloaded where gradients stay (as in the artifact)."""
        ratios = product(self.weight_ratios, self.grad_ratios, self.optimizer_ratios, self.activation_ratios)
        return [combination for combination in ratios if not (combination[0] > 0 and combination[1] == 0)]

    def policies(self, dp: int) -> Policies:
        """Return every ZeRO level with every offload combination; levels above 1 only for dp > 1."""
        return _policies(self, dp > 1)

    def checkpointed(self, layers: int) -> np.ndarray:
        """Return the numbers of checkpointed layers to try for a stage of `layers`."""
        return {"free": np.arange(layers + 1), "full": np.array([layers]), "none": np.array([0])}[self.checkpointing]

    def layer_counts(self, setting: Setting) -> list[int]:
        """Return the layers a stage may have: an even split, give or take the window; exactly even if G = 1."""
        even = int(setting.spec.layers / setting.stages + 0.5)
        window = 0 if setting.accumulation == 1 else self.layer_window
        if setting.stages == 1:
            return [setting.spec.layers]
        return [count for count in range(even - window, even + window + 1) if 1 <= count <= setting.spec.layers]


@cache  # thousands of rows, the same for every candidate of a search
def _policies(space: Space, shards: bool) -> Policies:
    levels = [level for level in space.zero if level <= 1 or shards] or [min(space.zero)]
    rows = np.array([(level, *ratios) for level in levels for ratios in space.offloads()])
    return Policies(rows[:, 0].astype(int), *np.ascontiguousarray(rows[:, 1:].T))


FULL = Space()
_NO_OFFLOAD = Space(weight_ratios=_NONE, grad_ratios=_NONE, optimizer_ratios=_NONE, activation_ratios=_NONE)
_STEPS: tuple[tuple[str, dict[str, object]], ...] = (
    ("3D parallelism, checkpointing fixed", {"checkpointing": "full", "zero": (1,)}),
    ("+ checkpointing and ZeRO-2/3", {"checkpointing": "free", "zero": (1, 2, 3)}),
    ("+ optimizer offload", {"optimizer_ratios": FINE}),
    ("+ activation offload", {"activation_ratios": FINE}),
    ("+ gradient offload", {"grad_ratios": COARSE}),
    ("+ weight offload", {"weight_ratios": COARSE}),
    ("+ imbalance awareness", {"imbalance": True}),
)


def cumulative_spaces() -> dict[str, Space]:
    """Return seven spaces, each with one more dimension (the paper's breakdown and its tuning-time study)."""
    spaces, current = {}, replace(_NO_OFFLOAD, imbalance=False)
    for name, change in _STEPS:
        current = replace(current, **change)  # type: ignore[arg-type]
        spaces[name] = current
    return spaces


def settings(
    spec: ModelSpec, cluster: Cluster, global_batch: int, space: Space, *, check_pipeline: bool = True
) -> Iterator[Setting]:
    """Yield every (tp, stages, G) whose numbers divide: equal meshes of 2^k devices, G a power of two.

    `check_pipeline` drops settings with more stages than micro-batches or layers, which no plan can use.
    """
    for tp in space.tp_sizes:
        if tp > cluster.gpus_per_node or any(
            size % tp for size in (spec.shape.heads, spec.shape.kv_heads, spec.shape.ffn, spec.shape.vocab)
        ):
            continue
        for stages in _powers_of_two(cluster.gpus):
            if cluster.gpus % (stages * tp) or (space.stages is not None and stages not in space.stages):
                continue
            dp = cluster.gpus // (stages * tp)
            for micro_batch in space.micro_batches:
                accumulation, rest = divmod(global_batch, micro_batch * dp)
                if rest or accumulation not in _powers_of_two(global_batch):
                    continue
                if check_pipeline and (stages > accumulation or stages > spec.layers):
                    continue
                yield Setting(spec, cluster, micro_batch, dp, tp, accumulation, stages)


def _powers_of_two(limit: int) -> list[int]:
    return [1 << k for k in range(limit.bit_length()) if 1 << k <= limit]


@dataclass(frozen=True)
class SpaceSize:
    """Sizes of a space: offload combinations, intra-stage configurations over all meshes, and evaluations.

    `reachable` counts (stage, layers, checkpointed layers, configuration) that a pipeline of the search can hold;
    `artifact_counts` also what the artifact evaluates in vain, single stages with one or two layers too few.
    """

    offload_combinations: int
    configurations: int
    reachable: int
    artifact_counts: int


def size(spec: ModelSpec, cluster: Cluster, global_batch: int, space: Space) -> SpaceSize:
    """Count a search space without evaluating it (§2.11)."""
    every = list(settings(spec, cluster, global_batch, space, check_pipeline=False))
    reachable = in_vain = 0
    for setting in settings(spec, cluster, global_batch, space):
        cells = sum(len(space.checkpointed(layers)) for layers in space.layer_counts(setting))
        policies = len(space.policies(setting.dp))
        reachable += setting.stages * cells * policies
        if setting.stages == 1:
            in_vain += policies * sum(len(space.checkpointed(spec.layers - fewer)) for fewer in (1, 2))
    configurations = sum(len(space.policies(setting.dp)) for setting in every)
    return SpaceSize(len(space.offloads()), configurations, reachable, reachable + in_vain)
