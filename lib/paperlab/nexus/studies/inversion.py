"""Which phase gets what under each objective: the published slacks turn the two priorities around (§4.1.2, §5).

"Minimize X while Y keeps its slack" gives X whatever Y does not need. So prefill-first hands decode what 1.1 times
its optimum takes, and decode-first hands prefill what 1.3 times its optimum takes. Decode-first gives decode more
than prefill-first does only if the two needs together fit on the device: R_p(α) + R_d(β) <= 100.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from paperlab.nexus.cost_model import CostModel
from paperlab.nexus.saturation import PUBLISHED_DECODE, PUBLISHED_PREFILL
from paperlab.nexus.search import search
from paperlab.nexus.settings import Settings
from paperlab.nexus.studies.saturation_study import published_model
from paperlab.serving.work import StepShape

ALPHAS = (1.1, 1.2, 1.3, 1.5, 2.0)
BETAS = (1.05, 1.1, 1.2, 1.3, 1.5)
FLOOR = 5  # percent: the smallest green context of an L20


def splits(
    prefill: StepShape = PUBLISHED_PREFILL,
    decode: StepShape = PUBLISHED_DECODE,
    alphas: Iterable[float] = ALPHAS,
    betas: Iterable[float] = BETAS,
    model: CostModel | None = None,
) -> pd.DataFrame:
    """Return R_p of both modes over slacks.

    Columns: alpha, beta, prefill_first (R_p while prefill is the target), decode_first (R_p while decode is), need
    (R_p(α) + R_d(β), what both phases need to keep their slacks), inverted (whether decode-first gives decode less).
    """
    co_run = (model or published_model()).co_run(prefill, decode)
    betas, rows = tuple(betas), []
    for alpha in alphas:
        for beta in betas:
            settings = Settings(alpha=alpha, beta=beta)
            first = {target: search(co_run, target, 50, settings, FLOOR) for target in ("prefill", "decode")}
            prefill_first, decode_first = (first[target].prefill_percent for target in ("prefill", "decode"))
            need = decode_first + 100 - prefill_first
            rows.append((alpha, beta, prefill_first, decode_first, need, decode_first > prefill_first))
    return pd.DataFrame(rows, columns=["alpha", "beta", "prefill_first", "decode_first", "need", "inverted"])
