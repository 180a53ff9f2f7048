"""How much work Mist's experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from paperlab.mist.models import SIZES

# Size -> nodes, GPUs per node, sequences per iteration (the paper's workloads).
WORKLOADS = {"1.3b": (1, 2, 32), "2.7b": (1, 4, 64), "7b": (1, 8, 128), "13b": (2, 8, 256), "22b": (4, 8, 512)}
FAMILIES = ("gpt", "llama", "falcon")


@dataclass(frozen=True)
class Config:
    """Sizes of Mist's experiments; the defaults are the smallest that exercise every path."""

    seeds: tuple[int, ...] = (0,)  # of stochastic experiments
    sizes: tuple[str, ...] = ("1.3b",)  # models of the end-to-end comparisons
    families: tuple[str, ...] = ("gpt",)
    breakdown_size: str = "2.7b"  # also of the tuning-time study
    sensitivity_layers: tuple[int, ...] = (32,)
    sensitivity_size: str = "2.7b"
    sensitivity_batches: tuple[int, ...] = (64,)
    pipeline_draws: int = 20  # random pipelines per scenario
    front_draws: int = 2  # random instances of the Pareto and MILP studies
    interference_points: int = 400
    interference_repeats: int = 3  # timings per point measured on this machine
    aceso_evaluations: int = 100  # per number of stages
    executed_step: int = 5  # of the plans to execute, every so many-th
    timing_rounds: int = 1  # runs of every timed plan

    def __post_init__(self) -> None:
        named = (*self.sizes, self.breakdown_size, self.sensitivity_size)
        if not self.sizes or not set(named) <= set(SIZES):
            raise ValueError(f"sizes are {', '.join(named)}; choose from {', '.join(SIZES)}")
        if not set(self.families) <= set(FAMILIES):
            raise ValueError(f"families are {self.families}; choose from {', '.join(FAMILIES)}")
        if not self.seeds:
            raise ValueError("seeds is empty; give at least one")
        for item in fields(self):
            value = getattr(self, item.name)
            for number in value if isinstance(value, tuple) else (value,):
                if item.name != "seeds" and isinstance(number, int) and number < 1:
                    raise ValueError(f"{item.name} is {value}; write positive numbers")
