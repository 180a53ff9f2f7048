"""How latency falls with the share of multiprocessors (§3.2): the fit to the paper's figures, and each operator."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paperlab.hardware import device
from paperlab.nexus.belief import Belief, published_belief
from paperlab.nexus.cost_model import CostModel
from paperlab.nexus.saturation import PUBLISHED_DECODE, PUBLISHED_PREFILL, Fit, fit, profile, published_fit
from paperlab.serving.cost import ModelCost
from paperlab.serving.deployment import Deployment
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

SHARES = tuple(percent / 100 for percent in range(10, 101, 5))
FAMILIES = ("slope", "exponential")
STEPS = {"prefill": PUBLISHED_PREFILL, "decode": PUBLISHED_DECODE}


def published_model(belief: Belief | None = None, contention: str = "bytes") -> CostModel:
    """Return the cost model of the paper's motivation experiments: Qwen2.5-3B on an L20."""
    return CostModel(ModelCost(preset("qwen2.5-3b")), device("L20"), belief or published_belief(), contention)


def fit_table() -> pd.DataFrame:
    """Return what the paper states about latency and share beside the fit to it, as drops in percent.

    Columns: family, claim, phase, operator, from_share, to_share, relation, stated_drop, fitted_drop, miss_percent. The
    stated values are inputs: that the fit meets them says that the family is adequate, and nothing about the system.
    """
    rows = []
    for family in FAMILIES:
        found, model = published_fit(family), published_model(published_fit(family).belief)
        for point, miss in zip(found.points, found.misses, strict=True):
            drops = [100 * (1 - value) for value in (point.value, point.predicted(model))]
            relation = {"equal": "about", "at_most": "at least", "at_least": "at most"}[point.relation]
            cells = (family, point.origin, point.step.kind, point.operator or "all")
            rows.append((*cells, point.reference_share, point.share, relation, *drops, 100 * miss))
    columns = ["family", "claim", "phase", "operator", "from_share", "to_share", "relation"]
    return pd.DataFrame(rows, columns=[*columns, "stated_drop", "fitted_drop", "miss_percent"])


def share_table(shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return both phases' forecast latency by share, and what each operator takes of it (Fig. 5).

    Columns: family, phase, share, operator (`all` for the sum), latency_s, normalized (over the whole device's).
    """
    rows = []
    for family in FAMILIES:
        model = published_model(published_belief(family))
        for phase, step in STEPS.items():
            whole = _with_sum(model, step, 1.0)
            for share in shares:
                times = _with_sum(model, step, share)
                rows += [(family, phase, share, name, times[name], times[name] / whole[name]) for name in times]
    return pd.DataFrame(rows, columns=["family", "phase", "share", "operator", "latency_s", "normalized"])


def profiled_fit(setup: Deployment, shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)) -> Fit:
    """Return a belief fitted to stage latencies of the simulator's device, as an operator would profile a real one.

    Four batches, each alone at each share. It measures the physics from outside and never looks at its constants.
    """
    model = setup.device_model

    def measure(step: StepShape, share: float) -> float:
        return model.seconds(model.load(step), share)

    steps = (
        StepShape(2048, 0, 2048 * 2049 // 2),
        PUBLISHED_PREFILL,
        StepShape(decode_tokens=8, decode_context=8 * 2000, logits=8),
        StepShape(decode_tokens=64, decode_context=64 * 2000, logits=64),
    )
    return fit(profile(measure, steps, shares), setup.cost, setup.device)


def _with_sum(model: CostModel, step: StepShape, share: float) -> dict[str, float]:
    times = {name: value for name, value in model.times(step, share).items() if value}
    return times | {"all": sum(times.values())}
