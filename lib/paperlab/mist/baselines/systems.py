"""Baselines by name. The artifact forces full recompute on Megatron-LM and DeepSpeed; each also stands here without.

Batches per device go up to 16, as the artifact's best Megatron plans use more than its tuner's own 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from paperlab.mist.baselines.aceso import Aceso, aceso
from paperlab.mist.baselines.uniform import Uniform, best_uniform
from paperlab.mist.clusters import Cluster
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.space import COARSE, FINE, Space

_NONE, _ALL_OR_NOTHING = (0.0,), (0.0, 1.0)
_BATCHES = (1, 2, 4, 8, 16)


def _space(checkpointing: str, zero: tuple[int, ...] = (1,), **ratios: tuple[float, ...]) -> Space:
    kept = dict.fromkeys(("weight_ratios", "grad_ratios", "optimizer_ratios", "activation_ratios"), _NONE)
    return Space(checkpointing, zero, **{**kept, **ratios}, micro_batches=_BATCHES)  # type: ignore[arg-type]


MEGATRON_FORCED = "Megatron-LM-like, recompute forced"
MEGATRON_FREE = "Megatron-LM-like, recompute free"
DEEPSPEED_FORCED = "DeepSpeed-like, recompute forced"
DEEPSPEED_FREE = "DeepSpeed-like, recompute free"
DEEPSPEED_OFFLOAD = "DeepSpeed-like with offload, recompute free"
UNIFORM = "uniform heuristic"
ACESO = "Aceso-like"

# ZeRO-Offload moves all optimizer states (and, at ZeRO-3, all weights and gradients) or none.
_OFFLOAD = {"weight_ratios": _ALL_OR_NOTHING, "grad_ratios": _ALL_OR_NOTHING, "optimizer_ratios": _ALL_OR_NOTHING}
UNIFORMS = {
    item.name: item
    for item in (
        Uniform(MEGATRON_FORCED, _space("full")),
        Uniform(MEGATRON_FREE, _space("free")),
        Uniform(DEEPSPEED_FORCED, _space("full", (1, 2, 3)), sharding_needs_one_stage=True),
        Uniform(DEEPSPEED_FREE, _space("free", (1, 2, 3)), sharding_needs_one_stage=True),
        Uniform(DEEPSPEED_OFFLOAD, _space("free", (1, 2, 3), **_OFFLOAD), sharding_needs_one_stage=True),
        Uniform(
            UNIFORM,
            _space(
                "free",
                (1, 2, 3),
                weight_ratios=COARSE,
                grad_ratios=COARSE,
                optimizer_ratios=FINE,
                activation_ratios=FINE,
            ),
        ),
    )
}
NAMES = (*UNIFORMS, ACESO)


@dataclass(frozen=True)
class Found:
    """A baseline's best plan (None if nothing fits) and how many plans it compared."""

    name: str
    plan: Plan | None
    compared: int


def best_plan(
    name: str, spec: ModelSpec, cluster: Cluster, global_batch: int, aceso_settings: Aceso | None = None
) -> Found:
    """Return the best plan of a baseline.

    Raises:
        ValueError: an unknown name, or Aceso for a model with flash attention, which it does not have.
    """
    if name == ACESO:
        if spec.attention == "flash":
            raise ValueError("Aceso has no flash attention; compare with attention='math'")
        return Found(name, *aceso(spec, cluster, global_batch, aceso_settings or Aceso()))
    if name not in UNIFORMS:
        raise ValueError(f"baseline is {name!r}; choose one of {', '.join(NAMES)}")
    return Found(name, *best_uniform(UNIFORMS[name], spec, cluster, global_batch))
