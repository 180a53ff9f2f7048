"""The scorecard: every claim of every ledger with what was found for it and the verdict."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.claims import Claim, Judgment, Verdict, all_claims, judge
from paperlab.lab.paths import results_dir
from paperlab.lab.record import Finding, read_index

if TYPE_CHECKING:
    import pandas as pd

_NOT_PUBLISHED = {"smoke", "interactive", "book"}
_MISSES = (Verdict.DIRECTION, Verdict.CONTRADICTED)


@dataclass(frozen=True)
class Recorded(Finding):
    """A finding with the folder of the run that recorded it."""

    run: Path = Path()


def published_folders() -> list[Path]:
    """Return the committed result folders: `cpu` first, then one per GPU such as `h200`."""
    folders = [path for path in results_dir().glob("[!.]*") if path.is_dir() and path.name not in _NOT_PUBLISHED]
    return sorted(folders, key=lambda path: (path.name != "cpu", path.name))


def scorecard_folders(profile: str) -> list[Path]:
    """Return the folders that a profile's scorecard draws on: its own and those of real GPUs."""
    gpus = [path for path in published_folders() if path.name != "cpu"]
    return [results_dir() / profile, *gpus] if profile in ("smoke", "cpu") else gpus


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of the runs (one per notebook) below a result folder."""
    return sorted(path.parent for path in folder.glob("[0-9][0-9]_*/index.json"))


def collect_findings(folders: list[Path]) -> dict[str, list[Recorded]]:
    """Return the findings of all runs below `folders`, by claim id, in the order of `folders`."""
    findings: dict[str, list[Recorded]] = {}
    for run in (run for folder in folders for run in run_folders(folder)):
        for finding in read_index(run)[1]:
            findings.setdefault(finding.claim_id, []).append(Recorded(**vars(finding), run=run))
    return findings


def judge_all(folders: list[Path]) -> dict[str, list[Judgment]]:
    """Return the judgments of every ledger, by system."""
    findings = collect_findings(folders)
    return {
        system: [judge(claim, findings.get(claim.claim_id, [])) for claim in ledger.values()]
        for system, ledger in all_claims().items()
    }


def summary(judgments: dict[str, list[Judgment]]) -> pd.DataFrame:
    """Return how many claims got each verdict: a row per system and origin, a column a verdict.

    Origin `paper` is what the paper itself says; `related` its released code and what follows from its method.
    """
    import pandas as pd

    rows = []
    for system, items in judgments.items():
        for origin in ("paper", "related"):
            counts = Counter(item.verdict for item in items if item.claim.origin == origin)
            rows.append(
                {"system": system, "origin": origin, "claims": counts.total(), **{str(v): counts[v] for v in Verdict}}
            )
    return pd.DataFrame(rows, columns=["system", "origin", "claims", *map(str, Verdict)])


def details(judgments: dict[str, list[Judgment]]) -> pd.DataFrame:
    """Return one row per claim: what the paper says, what was found, the verdict, why, and what it takes to see it."""
    import pandas as pd

    costs: dict[Path, dict[str, Any]] = {}
    return pd.DataFrame(
        [_row(system, item) | _cost(item, costs) for system, items in judgments.items() for item in items]
    )


def deviations(judgments: dict[str, list[Judgment]]) -> pd.DataFrame:
    """Return one row per claim that did not come out as stated: both values, the verdict, the reason."""
    import pandas as pd

    columns = ["system", "claim_id", "statement", "paper", "ours", "verdict", "reason"]
    rows = [_row(system, item) for system, items in judgments.items() for item in items if item.verdict in _MISSES]
    return pd.DataFrame(rows, columns=columns)


def _row(system: str, item: Judgment) -> dict[str, str]:
    claim, finding = item.claim, item.finding
    return {
        "system": system,
        "origin": claim.origin,
        "claim_id": claim.claim_id,
        "paper_ref": claim.paper_ref,
        "statement": claim.statement,
        "paper": _claimed(claim),
        "ours": _found(claim, finding) if finding else "",
        "decided_by": claim.evidence,
        "verdict": str(item.verdict),
        "reason": item.reason,
        "source": claim.source,
    }


def _cost(item: Judgment, known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Return the command that records a claim's finding, its seconds and its hardware, from the run's manifest."""
    from paperlab.lab.execute import MANIFEST  # which loads what only runs need

    finding = item.finding
    if not isinstance(finding, Recorded):
        return {"command": "", "seconds": None, "hardware": ""}
    if finding.run not in known:
        manifest = json.loads((finding.run / MANIFEST).read_text())
        host = manifest["host"]
        known[finding.run] = {
            "command": f"paperlab run {finding.run.name} --profile {manifest['profile']}",
            "seconds": round(manifest["wall_s"]),
            "hardware": ", ".join([f"{host['cores']} cores {host['cpu']}", *host["cuda_devices"]]),
        }
    return known[finding.run]


def _claimed(claim: Claim) -> str:
    if claim.value_low is None:
        return "holds" if claim.is_qualitative else ""
    values = [claim.value_low] if claim.value_high is None else [claim.value_low, claim.value_high]
    sign = {"at_least": "≥ ", "at_most": "≤ "}.get(claim.comparison, "")
    allowed = f"(± {100 * claim.tolerance:.3g} %)" if claim.is_numeric and claim.tolerance else ""
    return f"{sign}{' to '.join(f'{value:g}' for value in values)} {claim.unit} {allowed}".strip()


def _found(claim: Claim, finding: Finding) -> str:
    if isinstance(finding.value, bool):
        value = "holds" if finding.value else "does not hold"
    else:
        value = f"{finding.value:.4g} {claim.unit}".strip()
    return f"{value} [{finding.evidence}]"
