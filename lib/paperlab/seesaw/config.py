"""How much work Seesaw's paper-scale experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of Seesaw's experiments; the defaults are the smallest that exercise every path.

    `arxiv_requests` and `sharegpt_requests` are those of Figs. 10 to 12 (the paper's: 500 and 2,000).
    """

    seeds: tuple[int, ...] = (0,)
    workers: int = 1  # processes of a grid of simulations
    arxiv_requests: int = 24
    sharegpt_requests: int = 40
    simulate: int = 1  # how many of the best forecasts of either kind each cell simulates
    devices: tuple[str, ...] = ("A10",)
    ratio_requests: int = 12  # of Fig. 13's equal requests
    ratios: tuple[float, ...] = (0.0, 0.05, 0.3)  # output over input; 0: one token
    link_requests: int = 16  # of Fig. 14
    link_factors: tuple[float, ...] = (0.1, 50.0)
    policy_requests: int = 24  # of the ablation
    host_GiB: tuple[float, ...] = (60.0, 8.0)
    engine_requests: int = 6  # served by real processes on this machine
    engine_repeats: int = 1
    engine_batches: tuple[int, ...] = (2, 8)  # whose copies are compared with a reload
    engine_host_shares: tuple[float, ...] = (0.25, 1.5)  # host tiers over the prompts' keys and values
    overlap_repeats: int = 1
    prediction_workloads: int = 1  # that the calibration has not seen, of three
    prediction_rounds: int = 1

    def __post_init__(self) -> None:
        counts = ("arxiv_requests", "sharegpt_requests", "simulate", "ratio_requests", "link_requests", "workers")
        engine = ("engine_requests", "engine_repeats", "overlap_repeats", "prediction_workloads", "prediction_rounds")
        for name in (*counts, *engine):
            if getattr(self, name) < 1:
                raise ValueError(f"Config: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("seeds", "devices", "ratios", "link_factors", "host_GiB", "engine_batches", "engine_host_shares"):
            if not getattr(self, name):
                raise ValueError(f"Config: {name} is empty; give at least one")
        if min(*self.link_factors, *self.host_GiB, *self.engine_host_shares) <= 0 or min(self.ratios) < 0:
            raise ValueError(
                "Config: link_factors, host_GiB and engine_host_shares must be positive, ratios at least 0"
            )

    @property
    def requests(self) -> dict[str, int]:
        """Requests by workload."""
        return {"arxiv": self.arxiv_requests, "sharegpt": self.sharegpt_requests}
