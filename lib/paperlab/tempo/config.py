"""How much work Tempo's experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of Tempo's experiments; the defaults are the smallest that exercise every path."""

    seeds: tuple[int, ...] = (0,)  # of stochastic experiments
    grid_points: int = 20_001  # inputs at which derivatives are compared, per dtype
    layernorm_rows: int = 256  # rows of the LayerNorm error table
    random_shapes: int = 6  # (B, S, H, A) at which ledger and closed form are compared
    ablation_seq_lens: tuple[int, ...] = (128, 512)
    ablation_hidden: tuple[int, ...] = (1024,)
    capacity_seq_lens: tuple[int, ...] = (512,)
    capacity_gib: tuple[int, ...] = (11, 16)
    planner_layers: int = 4  # of BERT-Large, for Auto-Tempo
    compile_budgets: tuple[float, ...] = (0.5,)  # of torch.compile's activation memory, from 0 to 1
    loss_steps: int = 400  # fewer do not learn, and prove nothing
    loss_arms: tuple[str, ...] = ("baseline", "Tempo", "control: sign slip in GELU")
    fine_tuning_steps: int = 100
    timing_model: str = "tiny BERT"  # of speed/workloads.py
    timing_batch: int = 16
    timing_rounds: int = 3

    def __post_init__(self) -> None:
        if not self.seeds or min(self.grid_points, self.loss_steps, self.random_shapes) < 1:
            raise ValueError(f"Config: seeds {self.seeds} must not be empty and sizes must be positive")
