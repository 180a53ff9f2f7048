"""The only way anything reaches `results/`: tables, figures and findings with their evidence.

A notebook opens a `Run`, and each save goes through it. Under the executor the run writes into a staging
folder that replaces the published one only when the whole notebook has succeeded; opened by hand in
JupyterLab it writes to `results/interactive/`, so that exploring never touches published results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paperlab.lab import claims, tables
from paperlab.lab.evidence import Evidence, parse_evidence
from paperlab.lab.files import sha256, write_atomic, write_json
from paperlab.lab.paths import notebooks_dir, results_dir
from paperlab.lab.profiles import Profile, get_profile
from paperlab.lab.seeding import seed_everything

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Config = TypeVar("Config")
STAGING = "PAPERLAB_STAGING"  # set by the executor: where this notebook's results are gathered


@dataclass(frozen=True)
class Artifact:
    """One saved table or figure: its files, what they show, and what kind of fact that is."""

    name: str
    kind: str  # "table" or "figure"
    caption: str
    evidence: tuple[str, ...]
    timed: bool  # holds wall-clock measurements, so a second run differs
    files: dict[str, str]  # path below the run's folder -> SHA-256


@dataclass(frozen=True)
class Finding:
    """What one notebook found for one claim."""

    claim_id: str
    value: float | bool
    evidence: str
    artifact: str  # the table or figure that shows it
    note: str = ""


@dataclass
class Run:
    """One execution of one notebook: its profile, its seed, and what it has saved so far."""

    notebook: str
    profile: Profile
    seed: int
    folder: Path
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)

    def config(self, system: str, cls: type[Config]) -> Config:
        """Return `system`'s config of this run's profile; see `Profile.config`."""
        return self.profile.config(system, cls)

    def save_table(
        self,
        frame: pd.DataFrame,
        name: str,
        *,
        caption: str,
        evidence: str | None = None,
        timed: bool = False,
    ) -> pd.DataFrame:
        """Save `frame` as CSV, Markdown and LaTeX, and return it with its `evidence` column.

        Args:
            frame: a tidy table; it has a column `evidence`, or `evidence` names the class of all rows.
            name: file stem, such as `table_2`.
            caption: one sentence that says what the rows are.
            evidence: class of all rows where the frame has no such column.
            timed: the values are wall-clock measurements, exempt from the determinism check.

        Raises:
            ValueError: empty table, missing or unknown evidence, or an empty caption.
        """
        frame = tables.with_evidence(frame, evidence, name)
        contents = tables.render(frame)
        classes = tuple(sorted(set(frame["evidence"])))
        self._save(name, "table", caption, classes, timed, {f"{name}.{k}": v for k, v in contents.items()})
        return frame

    def save_figure(
        self,
        figure: Figure,
        name: str,
        data: pd.DataFrame,
        *,
        caption: str,
        evidence: str | None = None,
        timed: bool = False,
    ) -> None:
        """Save `figure` as SVG and PNG beside the CSV it was drawn from; arguments as in `save_table`."""
        from paperlab.lab import style

        data = tables.with_evidence(data, evidence, name)
        classes = tuple(sorted(set(data["evidence"])))
        style.footer(figure, f"{', '.join(classes)} · {self.notebook} · profile {self.profile.name}")
        contents: dict[str, str | bytes] = {f"{name}.csv": tables.to_csv(data)}
        contents |= {f"{name}.{kind}": style.render(figure, kind) for kind in ("svg", "png")}
        self._save(name, "figure", caption, classes, timed, contents)

    def record_claim(self, claim_id: str, value: float | bool, *, evidence: str, artifact: str, note: str = "") -> str:
        """Record what was found for `claim_id` and return the verdict it leads to.

        Args:
            claim_id: a row of `data/claims/*.csv`.
            value: the found number in the claim's unit, or whether a qualitative claim holds.
            evidence: class of `value`.
            artifact: name of a table or figure saved before, which shows the value.
            note: why it deviates, or what it is sensitive to.

        Raises:
            KeyError: `claim_id` is in no ledger.
            ValueError: unknown evidence, or `artifact` was not saved by this run.
        """
        claim = claims.get_claim(claim_id)
        if artifact not in self.artifacts:
            saved = ", ".join(self.artifacts) or "nothing so far"
            raise ValueError(f"claim {claim_id}: artifact {artifact!r} was not saved by this run ({saved})")
        plain = bool(value) if claim.is_qualitative else float(value)
        finding = Finding(claim_id, plain, parse_evidence(evidence).value, artifact, note)
        self.findings[claim_id] = finding
        self._write_index()
        return str(claims.judge(claim, [finding]).verdict)

    def _save(
        self,
        name: str,
        kind: str,
        caption: str,
        evidence: Iterable[Evidence | str],
        timed: bool,
        contents: dict[str, Any],
    ) -> None:
        if not caption.strip():
            raise ValueError(f"{name}: a {kind} needs a caption of one sentence")
        paths = {file: write_atomic(self.folder / file, content) for file, content in contents.items()}
        hashes = {file: sha256(path) for file, path in paths.items()}
        self.artifacts[name] = Artifact(name, kind, caption, tuple(map(str, evidence)), timed, hashes)
        self._write_index()

    def _write_index(self) -> None:
        write_json(
            self.folder / "index.json",
            {
                "artifacts": [asdict(item) for item in self.artifacts.values()],
                "findings": [asdict(item) for item in self.findings.values()],
            },
        )


def start(notebook: str, profile: str = "smoke", seed: int = 0) -> Run:
    """Open the run of `notebook` (its stem, such as `41_tempo_experiments`) and seed everything.

    Raises:
        ValueError: unknown notebook, profile or a seed out of range.
        PermissionError: the results folder is not writable.
    """
    known = sorted(path.stem for path in notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
    if notebook not in known:
        raise ValueError(f"notebook: {notebook!r} is unknown; use one of {', '.join(known)}")
    chosen = get_profile(profile)
    staging = os.environ.get(STAGING)
    folder = Path(staging) if staging else results_dir() / "interactive" / profile / notebook
    from paperlab.lab import style

    style.use_style()
    seed_everything(seed)
    run = Run(notebook, chosen, seed, folder)
    run._write_index()
    return run


def read_index(folder: Path) -> tuple[list[Artifact], list[Finding]]:
    """Return the artifacts and findings that a run left in `folder`."""
    index = json.loads((folder / "index.json").read_text())
    artifacts = [Artifact(**{**item, "evidence": tuple(item["evidence"])}) for item in index["artifacts"]]
    return artifacts, [Finding(**item) for item in index["findings"]]
