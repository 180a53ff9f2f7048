"""How much work AQuant's experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paperlab.aquant.studies.cases import Case


@dataclass(frozen=True)
class Config:
    """Sizes of AQuant's experiments; the defaults are the smallest that exercise every path."""

    workers: int = 1  # processes, one torch thread each
    draws: int = 100_000  # of the theorems' Monte Carlo
    task: str = "digits"  # of the nets: "gabor" or "digits", where nearly every net is right and little can be ranked
    iterations: int = 50  # per unit; below 800 QDrop loses what it is known for
    calibration_images: int = 64
    nets: tuple[int, ...] = (0,)  # seeds of N1, the unit of every interval
    arms: tuple[str, ...] = ("RTN", "QDrop", "AQuant")
    layerwise_nets: tuple[int, ...] = ()  # seeds of N1 for AdaRound, which learns layer by layer and so twice as long
    pair_nets: tuple[int, ...] = ()  # seeds of N1 beside `nets` for AQuant and QDrop, whose difference is small
    second_nets: tuple[int, ...] = ()  # seeds of N2, the MobileNetV2-style network
    digits_nets: tuple[int, ...] = ()  # seeds of N1 on digits, beside `task`
    ablation_nets: tuple[int, ...] = (0,)  # seeds of N1 in all ablations
    ablation_iterations: int = 50  # per unit: fewer than in the main table, for many more arms
    ablation_arms: tuple[str, ...] = ("no drop", "QDrop", "AQuant", "AQuant, drop")
    degrees: tuple[int, ...] = (1,)  # beside 2, which the arm AQuant has
    bit_pairs: tuple[tuple[int, int], ...] = ()  # (weights, activations) beside 2/2
    calibration_sizes: tuple[int, ...] = ()
    iteration_counts: tuple[int, ...] = ()  # beside `ablation_iterations`
    granularities: tuple[str, ...] = ("tensor",)
    stem_rules: tuple[str, ...] = ("none",)  # which layers have 8 bits, beside QDrop's rule
    oracle_images: int = 100
    random_borders: int = 3
    cost_stride: int = 6  # every so many of the layers of two full-size networks are timed
    timing_rounds: int = 5

    def __post_init__(self) -> None:
        from paperlab.aquant.studies.cases import ARMS, TASKS

        for name in ("arms", "ablation_arms"):
            unknown = sorted(set(getattr(self, name)) - set(ARMS))
            if unknown:
                raise ValueError(f"Config: {name} holds {', '.join(unknown)}; known are {', '.join(ARMS)}")
        if self.task not in TASKS:
            raise ValueError(f"Config: task is {self.task!r}; use one of {', '.join(TASKS)}")
        if (
            not self.nets
            or min(self.workers, self.draws, self.iterations, self.ablation_iterations, self.timing_rounds) < 1
        ):
            raise ValueError(f"Config: nets {self.nets} must not be empty and sizes must be positive")

    def case(self, arm: str, seed: int, **changes: Any) -> Case:
        """Return one arm on the net of one seed, with this profile's iterations, images and task but for `changes`."""
        from paperlab.aquant.studies.cases import Case

        sizes = {"iterations": self.iterations, "images": self.calibration_images, "task": self.task}
        return Case(arm, seed=seed, **{**sizes, **changes})
