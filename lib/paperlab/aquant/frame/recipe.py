"""Every setting of a run, and the phases that make a method out of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.frame.scales import SEARCHED
from paperlab.aquant.quantizer import STES, check_bits

METHODS = ("rtn", "adaround", "brecq", "qdrop", "aquant", "aquant_cf")
DROPS = ("none", "qdrop", "case1", "case3")
STEM_HEAD = ("qdrop", "brecq", "none")
TERMS = ("weight", "propagated", "all")
_CHOICES = {"method": METHODS, "drop": DROPS, "stem_head": STEM_HEAD, "ste": STES, "scales": SEARCHED, "terms": TERMS}


@dataclass(frozen=True)
class Phase:
    """One loop over a unit: what it learns, from which input, with which activations."""

    weights: bool
    steps: bool
    border: bool
    iterations: int
    quantized_input: bool  # of the quantized prefix, else of the float network
    quantized_activations: bool
    drop: bool  # QDrop's random mix of float and quantized values
    power: float = 2.0  # of the loss


@dataclass(frozen=True)
class Recipe:
    """Settings of one quantization; defaults are those of the published codes, cut to 2,000 iterations.

    QDrop and BRECQ publish 20,000 iterations per unit, with Adam's rate 1e-3 for weight rounding and, in QDrop, 4e-5
    for step sizes. Fewer iterations want higher rates, so settings hold the travel, rate times iterations (down to 400
    iterations). AQuant's own schedule could not be read; `border_travel` is ours.
    """

    method: str = "aquant"
    w_bits: int = 4
    a_bits: int = 4
    border: BorderSpec | None = None
    drop: str = (
        "none"  # "qdrop", or QDrop's cases: 1 no activation quantization, 2 ("none") all of it, 3 in the input alone
    )
    stem_head: str = "qdrop"  # 8 bits: "qdrop" stem and head weights, head input; "brecq" the stem's output too; "none"
    scales: str = "mse"
    ste: str = "clip_before_round"
    layerwise: bool = False  # units are layers, not blocks
    iterations: int = 2000
    batch: int = 32
    weight_travel: float = 20.0
    step_travel: float = 0.8
    border_travel: float = 5.0
    rounding_weight: float = 0.01  # λ of AdaRound's regularizer; 0.1 is published for MobileNetV2
    warmup: float = 0.2  # share of the iterations without the regularizer
    steps_from_prefix: bool = False  # BRECQ's phase 2 on the quantized prefix; the released code uses the float network
    refresh: int = 0  # iterations for border and steps after the weights are hard
    terms: str = "all"  # of the border in closed form: "weight" error, with "propagated", with global error as well
    seed: int = 0

    def __post_init__(self) -> None:
        check_bits("w_bits", self.w_bits)
        check_bits("a_bits", self.a_bits)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(choices)}")
        for name in ("iterations", "batch", "weight_travel", "step_travel"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be positive")
        for name in ("border_travel", "rounding_weight", "refresh"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must not be negative")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup!r}; it is a share from 0 to below 1")
        if self.border is not None and not self.method.startswith("aquant"):
            raise ValueError(f"method {self.method!r} has no border; use method 'aquant' or leave border out")

    def sweeps(self) -> tuple[tuple[Phase, ...], ...]:
        """Return the passes over the network, front to back, and the phases of each unit within a pass."""
        n = self.iterations
        if self.method in ("rtn", "aquant_cf"):
            return ()
        if self.method in ("adaround", "brecq"):
            steps = Phase(False, True, False, n, self.steps_from_prefix, True, False, power=2.4)
            return (Phase(True, False, False, n, True, False, False),), (steps,)
        if self.drop in ("case1", "case3"):
            weights = Phase(True, False, False, n, self.drop == "case3", False, False)
            return ((weights, Phase(False, True, self.border is not None, n, True, True, False)),)
        bordered = self.border is not None
        joint = Phase(True, True, bordered, n, True, True, self.drop == "qdrop")
        refresh = Phase(False, True, bordered, self.refresh, True, True, False)
        return ((joint, refresh) if self.refresh else (joint,),)


def make_recipe(method: str, w_bits: int, a_bits: int, settings: dict[str, Any]) -> Recipe:
    """Return the recipe of a method by name; `settings` override its defaults.

    Raises:
        ValueError: a setting is unknown or has a bad value.
    """
    known = {item.name for item in fields(Recipe)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    presets: dict[str, dict[str, Any]] = {
        "adaround": {"layerwise": True},
        "qdrop": {"drop": "qdrop"},
        "aquant": {"border": BorderSpec()},
        # A polynomial fitted in closed form cannot be squashed afterwards; clipping keeps it a rounding.
        "aquant_cf": {"border": BorderSpec(bound="clip")},
    }
    return Recipe(method=method, w_bits=w_bits, a_bits=a_bits, **{**presets.get(method, {}), **settings})
