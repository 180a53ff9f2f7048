"""The closed-form iteration time against the event-driven 1F1B simulation, over random pipelines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from paperlab.mist.cost.pipeline import averaged_s, closed_form_s, iteration_s, simulate

_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Scenario:
    """Random stages: t spread by ±`t_spread` around 1, d uniform up to `d_limit`·t; extras may start early or not."""

    name: str
    t_spread: float
    d_limit: float
    early_start: bool = True


SCENARIOS = (
    Scenario("equal t, no d", 0.0, 0.0),
    Scenario("equal t, d up to 0.5 t", 0.0, 0.5),
    Scenario("t ± 10 %, d up to 0.5 t", 0.1, 0.5),
    Scenario("t ± 30 %, d up to t", 0.3, 1.0),
    Scenario("t ± 10 %, d up to 3 t", 0.1, 3.0),
    Scenario("the same, extras wait for input", 0.1, 3.0, early_start=False),
)


def formula_table(draws: int, seed: int) -> pd.DataFrame:
    """Relative error of both formulas per scenario and draw; S of 2, 4, 8, and G from S to 8 S."""
    generator = np.random.default_rng(seed)
    rows = []
    for scenario in SCENARIOS:
        for _ in range(draws):
            stages = int(generator.choice([2, 4, 8]))
            accumulation = int(stages * generator.integers(1, 9))
            t = 1 + scenario.t_spread * generator.uniform(-1, 1, stages)
            d = t * generator.uniform(0, scenario.d_limit, stages)
            (forward, first), (backward, last) = (
                (list(share * t), list(share * d)) for share in (_FORWARD_SHARE, 1 - _FORWARD_SHARE)
            )
            work = simulate(forward, backward, first, last, accumulation, early_start=scenario.early_start)
            simulated = iteration_s(work)
            for form, function in (("closed form", closed_form_s), ("d averaged over G", averaged_s)):
                error = function(list(t), list(d), accumulation) / simulated - 1
                rows.append((scenario.name, form, stages, accumulation, error))
    return pd.DataFrame(rows, columns=["scenario", "formula", "stages", "accumulation", "error"])
