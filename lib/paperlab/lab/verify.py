"""Checks of published results: claims, evidence, hashes, freshness, budgets, and a second run that must agree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from paperlab.lab import scorecard, tables
from paperlab.lab.claims import Verdict, all_claims
from paperlab.lab.evidence import Evidence
from paperlab.lab.execute import MANIFEST, execute
from paperlab.lab.files import sha256
from paperlab.lab.inputs import notebook_inputs, notebook_settings, relative
from paperlab.lab.manifest import output_hashes
from paperlab.lab.record import read_index


def verify(folder: Path) -> list[str]:
    """Return every problem found in a profile's results, one line each; an empty list means all is well."""
    runs = scorecard.run_folders(folder)
    if not runs:
        return [f"{folder}: no results"]
    problems = [problem for run in runs for problem in _verify_run(run)]
    return problems + list(_verify_claims(folder))


def _verify_run(folder: Path) -> Iterator[str]:
    if not (folder / MANIFEST).is_file():
        yield f"{folder.name}: no {MANIFEST}; run it with `paperlab run`"
        return
    manifest = json.loads((folder / MANIFEST).read_text())
    yield from _verify_hashes(folder, manifest["outputs"])
    yield from _verify_freshness(folder.name, manifest)
    yield from _verify_budget(folder.name, manifest)
    yield from _verify_evidence(folder)


def _verify_hashes(folder: Path, recorded: dict[str, str]) -> Iterator[str]:
    present = output_hashes(folder)
    for name in sorted(recorded.keys() | present.keys()):
        if recorded.get(name) != present.get(name):
            state = "missing" if name not in present else "not in manifest" if name not in recorded else "changed"
            yield f"{folder.name}/{name}: {state} since the run"


def _verify_freshness(notebook: str, manifest: dict) -> Iterator[str]:
    now = {relative(path): sha256(path) for path in notebook_inputs(notebook)}
    for path in sorted(now.keys() | manifest["inputs"].keys()):
        if now.get(path) != manifest["inputs"].get(path):
            yield f"{notebook}: stale, {path} is not what the run used"
    settings = notebook_settings(notebook, manifest["profile"])
    if json.loads(json.dumps(settings)) != manifest["settings"]:
        yield f"{notebook}: stale, the profile's settings are not what the run used"


def _verify_budget(notebook: str, manifest: dict) -> Iterator[str]:
    budget = manifest["budget"]
    if manifest["wall_s"] > 60 * budget["minutes"]:
        yield f"{notebook}: took {manifest['wall_s']} s of {60 * budget['minutes']}"
    if manifest["peak_rss_GiB"] > budget["memory_GiB"]:
        yield f"{notebook}: used {manifest['peak_rss_GiB']} GiB of {budget['memory_GiB']}"


def _verify_evidence(folder: Path) -> Iterator[str]:
    for artifact in read_index(folder)[0]:
        frame = tables.read_csv((folder / f"{artifact.name}.csv").read_text())
        unknown = set(frame.get("evidence", [None])) - set(map(str, Evidence))
        if unknown:
            yield f"{folder.name}/{artifact.name}.csv: evidence {', '.join(map(str, unknown))} is not a class"


def _verify_claims(folder: Path) -> Iterator[str]:
    known = {claim_id for ledger in all_claims().values() for claim_id in ledger}
    for claim_id in sorted(scorecard.collect_findings([folder]).keys() - known):
        yield f"claim {claim_id}: recorded, but in no ledger"
    for items in scorecard.judge_all(scorecard.scorecard_folders(folder.name)).values():
        for item in items:
            if item.verdict == Verdict.MISSING:
                yield f"claim {item.claim.claim_id}: {item.reason}"


def rerun(notebook: str, profile: str, folder: Path) -> list[str]:
    """Run `notebook` again elsewhere and return which untimed files differ from those in `folder`.

    Markdown and LaTeX follow from the CSV, PNG from the same drawing as the SVG, so CSV and SVG are compared.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    with tempfile.TemporaryDirectory() as scratch:
        again = execute(notebook, profile, manifest["parameters"], results=Path(scratch))
        return [
            f"{notebook}/{name}: differs on a second run"
            for artifact in read_index(folder)[0]
            if not artifact.timed
            for name, digest in artifact.files.items()
            if name.endswith((".csv", ".svg")) and sha256(again / name) != digest
        ]
