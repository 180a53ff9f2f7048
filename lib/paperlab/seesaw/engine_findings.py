"""What runs of the real engine say to each claim of the ledger."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from paperlab.seesaw.findings import Found
from paperlab.seesaw.studies.engine_rules import growth

FLAT, GROWING = 0.25, 0.5  # exponents: a reload's may differ from 0 by that much, a swap's must reach that


def turn_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield whether phases turned only when §4.2 says, from `engine_rules.turns`."""
    text = f"{table.as_stated.sum()} of {len(table)} turns, by the blocks that were written and fetched until then"
    yield Found("SS-153", bool(table.as_stated.all()), "turns", text)


def reload_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield how reloads and swaps grow with the batch, from `exhibit_reload`."""
    reload, swap = growth(table, "reload_s"), growth(table, "swap_s")
    text = f"time grows with the batch to the power of {reload:+.2f} for a reload, {swap:+.2f} for swapping"
    yield Found("SS-154", bool(abs(reload) <= FLAT and swap >= GROWING), "reload", text)


def group_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield whether decode steps served 1/PP of the resident sequences, from `table_groups`."""
    within = bool((table.served <= table.share).all())
    typical = (table.served == table.share).groupby(table.stages).mean()
    shares = ", ".join(f"PP {stages}: {share:.0%}" for stages, share in typical.items())
    text = f"none served more; exactly that many in {shares} of the steps (a last group may be smaller)"
    yield Found("SS-158", within and bool((typical >= 0.5).all()), "groups", text if within else "some served more")
