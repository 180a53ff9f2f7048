"""The claims ledger: what each paper says, what we found, and the verdict that follows.

A verdict is computed, never written: the ledger says what would count (`comparison`, `tolerance`, the class of
`evidence` that can decide), a notebook says what it found, and `judge` compares the two.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from paperlab.lab.evidence import Evidence, parse_evidence
from paperlab.lab.paths import data_dir

if TYPE_CHECKING:
    from paperlab.lab.record import Finding

COMPARISONS = ("at_least", "at_most", "within", "holds", "reference")
SOURCES = ("read", "third-party", "recalled", "derived", "measured", "unknown")
_UNDECIDING = ("recalled", "unknown")  # values nobody saw in a source never decide a verdict
_NEUTRAL = {"x": 1.0, "%": 0.0}  # the value that means "no effect", per unit: what a direction is relative to


class Verdict(StrEnum):
    """How a claim came out here."""

    REPRODUCED = "reproduced"
    DIRECTION = "direction"  # sign or order holds, the magnitude does not
    CONTRADICTED = "contradicted"
    PENDING_GPU = "pending-gpu"
    NOT_TESTABLE = "not-testable"
    MISSING = "missing"  # decidable, but no finding is recorded: its notebook has not run


@dataclass(frozen=True)
class Claim:
    """One row of `data/claims/<system>.csv`."""

    claim_id: str
    paper_ref: str  # table, figure or section of the paper, or its artifact's README
    arxiv_version: str  # empty where the statement is not in the paper itself
    statement: str
    value_low: float | None
    value_high: float | None
    unit: str
    comparison: str
    tolerance: float  # relative
    source: str
    evidence: str  # class that can decide; "none" where nothing here can
    note: str  # for "none" and "reference": the reason

    def __post_init__(self) -> None:
        where = f"claim {self.claim_id}"
        if not self.claim_id or not self.statement:
            raise ValueError(f"{where}: claim_id and statement must not be empty")
        if self.comparison not in COMPARISONS:
            raise ValueError(f"{where}: comparison {self.comparison!r} is not one of {', '.join(COMPARISONS)}")
        if self.source not in SOURCES:
            raise ValueError(f"{where}: source {self.source!r} is not one of {', '.join(SOURCES)}")
        if self.evidence != "none":
            parse_evidence(self.evidence)
        elif not self.note:
            raise ValueError(f"{where}: evidence 'none' needs a note that gives the reason")
        if self.tolerance < 0:
            raise ValueError(f"{where}: tolerance {self.tolerance} is negative")
        if self.is_numeric and self.value_low is None and self.source not in _UNDECIDING:
            raise ValueError(f"{where}: comparison {self.comparison!r} needs value_low")

    @property
    def origin(self) -> str:
        """`paper` for what the paper itself says, `related` for its released code and what follows from its method."""
        return "paper" if self.arxiv_version else "related"

    @property
    def is_qualitative(self) -> bool:
        """Whether the finding is a yes or no."""
        return self.comparison == "holds"

    @property
    def is_numeric(self) -> bool:
        """Whether the finding is a number compared with the claim's value."""
        return self.comparison in ("at_least", "at_most", "within")

    @property
    def is_decidable(self) -> bool:
        """Whether a finding could lead to a verdict here or on a GPU."""
        return self.evidence != "none" and self.comparison != "reference" and self.source not in _UNDECIDING

    @property
    def high(self) -> float | None:
        """The upper end of the claimed value; equal to the lower one for a single number."""
        return self.value_low if self.value_high is None else self.value_high


@dataclass(frozen=True)
class Judgment:
    """A claim's verdict, with the finding that decided it where there is one."""

    claim: Claim
    verdict: Verdict
    finding: Finding | None
    reason: str


def judge(claim: Claim, findings: Iterable[Finding]) -> Judgment:
    """Return the verdict of `claim` given what notebooks found for it.

    Only a finding of the class that the ledger asks for decides; a weaker one is shown beside `pending-gpu`.
    """
    findings = list(findings)
    shown = findings[-1] if findings else None
    if not claim.is_decidable:
        return Judgment(claim, Verdict.NOT_TESTABLE, shown, claim.note or f"value is {claim.source}")
    deciding = [item for item in findings if item.evidence == claim.evidence]
    if not deciding:
        if claim.evidence == Evidence.MEASURED_GPU:
            return Judgment(claim, Verdict.PENDING_GPU, shown, _pending(shown))
        return Judgment(claim, Verdict.MISSING, shown, f"no notebook recorded a {claim.evidence} finding")
    finding = deciding[-1]
    return Judgment(claim, _compare(claim, finding.value), finding, finding.note or claim.note)


def _pending(shown: Finding | None) -> str:
    reason = "needs a measurement on a CUDA device"
    return f"{reason}; {shown.note}" if shown and shown.note else reason


def _compare(claim: Claim, value: float | bool) -> Verdict:
    if claim.is_qualitative:
        return Verdict.REPRODUCED if value else Verdict.CONTRADICTED
    assert claim.value_low is not None
    assert claim.high is not None
    number = float(value)
    low = claim.value_low - claim.tolerance * abs(claim.value_low)
    high = claim.high + claim.tolerance * abs(claim.high)
    above, below = number >= low, number <= high
    holds = {"at_least": above, "at_most": below, "within": above and below}[claim.comparison]
    if holds:
        return Verdict.REPRODUCED
    return Verdict.DIRECTION if _same_direction(claim, number) else Verdict.CONTRADICTED


def _same_direction(claim: Claim, number: float) -> bool:
    neutral = _NEUTRAL.get(claim.unit)
    if neutral is None or claim.value_low is None or not math.isfinite(number):
        return False
    return (number - neutral) * (claim.value_low - neutral) > 0


def load_ledger(path: Path) -> dict[str, Claim]:
    """Read and validate one ledger file.

    Raises:
        ValueError: wrong columns, a duplicate id or a bad cell; the message names file, claim and field.
    """
    columns = [item.name for item in fields(Claim)]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"{path.name}: columns must be {','.join(columns)}, found {reader.fieldnames}")
        rows = [_parse(path, row) for row in reader]
    ledger = {claim.claim_id: claim for claim in rows}
    if len(ledger) != len(rows):
        ids = [claim.claim_id for claim in rows]
        raise ValueError(f"{path.name}: duplicate claim_id {', '.join(sorted({i for i in ids if ids.count(i) > 1}))}")
    return ledger


def _parse(path: Path, row: dict[str, str]) -> Claim:
    numbers = {"value_low": None, "value_high": None, "tolerance": 0.0}
    try:
        cells = {key: float(row[key]) if row[key] else default for key, default in numbers.items()}
        return Claim(**{**row, **cells})  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {row.get('claim_id')}: {error}") from error


@cache
def _ledgers(folder: Path) -> dict[str, dict[str, Claim]]:
    return {path.stem: load_ledger(path) for path in sorted(folder.glob("*.csv"))}


def all_claims() -> dict[str, dict[str, Claim]]:
    """Return every ledger, system by system.

    Raises:
        ValueError: a ledger is malformed, or two ledgers use the same claim id.
    """
    ledgers = _ledgers(data_dir() / "claims")
    ids = [claim_id for ledger in ledgers.values() for claim_id in ledger]
    duplicates = sorted({claim_id for claim_id in ids if ids.count(claim_id) > 1})
    if duplicates:
        raise ValueError(f"data/claims: claim_id in two ledgers: {', '.join(duplicates)}")
    return ledgers


def get_claim(claim_id: str) -> Claim:
    """Return the claim with this id.

    Raises:
        KeyError: it is in no ledger; the message suggests the closest ids.
    """
    import difflib

    known = {key: claim for ledger in all_claims().values() for key, claim in ledger.items()}
    if claim_id not in known:
        close = ", ".join(difflib.get_close_matches(claim_id, known, n=3)) or f"{len(known)} ids are known"
        raise KeyError(f"claim {claim_id!r} is in no ledger of data/claims; close: {close}")
    return known[claim_id]
