"""The paper against itself: what its numbers, formulas and listings give where its text says something (N-51 on)."""

from __future__ import annotations

import pandas as pd

from paperlab.lab.claims import get_claim
from paperlab.nexus.policy import NexusWithoutControl
from paperlab.nexus.studies import contention_study, inversion
from paperlab.serving.policy import Limits
from paperlab.serving.request import Request
from paperlab.serving.simulator import Stalled, simulate
from paperlab.serving.workload import Workload

FIGURE_6A_AXIS = (0.130, 0.150)  # lowest and highest tick; labeled ms, which cannot be


def checks() -> pd.DataFrame:
    """Return one row per check: claim_id, statement, stated, found, evidence."""
    found = {
        "N-51": _value("N-10b") / _value("N-09b"),
        "N-52": 100 * (FIGURE_6A_AXIS[1] / FIGURE_6A_AXIS[0] - 1),
        "N-53": listing_serves_long_prompts(),
        "N-54": not _published_slacks_invert(),
        "N-55": _contention_softens(),
    }
    rows = []
    for claim_id, value in found.items():
        claim = get_claim(claim_id)
        stated = "holds" if claim.is_qualitative else f"{claim.value_low:g} to {claim.high:g} {claim.unit}"
        rows.append((claim_id, claim.statement, stated, value, claim.evidence))
    return pd.DataFrame(rows, columns=["claim_id", "statement", "stated", "found", "evidence"])


def listing_serves_long_prompts(literal: bool = True) -> bool:
    """Return whether a prompt of one token more than the budget is served, by the listing or by our reading of it."""
    requests = Workload("one long prompt", (Request(0, 0.0, 512, 2), Request(1, 0.0, 513, 2)))
    policy = NexusWithoutControl(Limits(512), literal_listing=literal)
    try:
        simulate(policy, model="qwen2.5-3b", device="l20", workload=requests, limits=Limits(512))
    except Stalled:
        return False
    return True


def _published_slacks_invert() -> bool:
    return bool(inversion.splits(alphas=(1.3,), betas=(1.1,)).inverted.iloc[0])


def _contention_softens() -> bool:
    table = contention_study.by_split((20, 50))
    bandwidth = table[table.contention == "bytes"].set_index("prefill_percent").bandwidth
    return bool(bandwidth[20] > bandwidth[50])


def _value(claim_id: str) -> float:
    value = get_claim(claim_id).value_low
    assert value is not None
    return value
