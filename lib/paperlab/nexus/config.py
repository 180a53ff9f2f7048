"""How much work Nexus's experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of Nexus's experiments; the defaults are the smallest that exercise every path."""

    seeds: tuple[int, ...] = (0,)
    requests: int = 40  # per simulation
    workers: int = 2  # processes of a grid of simulations
    statistics_requests: int = 20_000  # drawn for Table 1
    ldc_rates: tuple[float, ...] = (1.0, 3.0)  # requests per second
    arxiv_rates: tuple[float, ...] = (2.0, 4.0)
    mixed_rates: tuple[float, ...] = (1.0, 3.0)
    large_rates: tuple[float, ...] = (0.5, 1.5)  # of Qwen2.5-14B on two devices
    ablation_rates: tuple[float, ...] = (1.0, 2.5)
    control_rates: tuple[float, ...] = (0.5, 2.0)
    offline_ldc_jobs: tuple[int, ...] = (32,)
    offline_mixed_jobs: tuple[int, ...] = (32,)
    penalties: tuple[float, ...] = (1.0, 1.5)  # of mixed batches, and of lanes side by side
    sweep_requests: int = 30
    engine_requests: int = 6  # served by the real engine on this machine
    engine_layers: int = 2
    prediction_policies: tuple[str, ...] = ("vllm-like",)  # whose real runs the calibrated simulator must predict
    prediction_traces: int = 1  # of the three that the calibration has not seen
    prediction_rounds: int = 1

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("Config: seeds is empty; give at least one")
        for name in ("requests", "workers", "statistics_requests", "sweep_requests", "engine_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"Config: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("ldc_rates", "arxiv_rates", "mixed_rates", "large_rates", "ablation_rates", "control_rates"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ValueError(f"Config: {name} is {getattr(self, name)}; give positive rates")
