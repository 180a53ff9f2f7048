"""The results as pages: `results/README.md` for the repository's readers, `index.html` per profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paperlab.lab import scorecard, tables
from paperlab.lab.execute import MANIFEST
from paperlab.lab.files import write_atomic
from paperlab.lab.notebooks import title_of
from paperlab.lab.paths import repo_root, results_dir
from paperlab.lab.record import read_index

README_MARKS = ("<!-- summary of results/README.md, written by `paperlab report` -->", "<!-- end of summary -->")
_SHOWN_ROWS = 60  # a longer table is linked, not printed


def write_report(profile: str) -> list[Path]:
    """Write `results/<profile>/index.html`, and `results/README.md` unless the profile is `smoke`.

    Raises:
        FileNotFoundError: the profile has no results yet.
    """
    folder = result_folder(profile)
    written = [write_atomic(folder / "index.html", render("index.html.j2", _context(folder)))]
    if folder in scorecard.published_folders():
        context = {
            **_scorecard_context("cpu"),
            "folders": [_context(path) for path in scorecard.published_folders()],
        }
        written.append(write_atomic(results_dir() / "README.md", render("README.md.j2", context)))
        readme = repo_root() / "README.md"
        if readme.exists():
            written.append(write_atomic(readme, with_summary(readme.read_text())))
    return written


def with_summary(readme: str) -> str:
    """Return the repository's README with the current scorecard between `README_MARKS`; unchanged without them."""
    before, mark, rest = readme.partition(README_MARKS[0])
    after = rest.partition(README_MARKS[1])[2]
    if not mark:
        return readme
    table = _scorecard_context("cpu")["summary"].drop(columns="origin").groupby("system", as_index=False).sum()
    return f"{before}{mark}\n\n{tables.to_markdown(table)}\n\n{README_MARKS[1]}{after}"


def result_folder(profile: str) -> Path:
    """Return the folder with a profile's results; for `gpu`, the newest device's.

    Raises:
        FileNotFoundError: there are none; the message says how to make them.
    """
    if profile == "gpu":
        candidates = [path for path in scorecard.published_folders() if path.name != "cpu"]
    else:
        candidates = [results_dir() / profile]
    candidates = [path for path in candidates if scorecard.run_folders(path)]
    if not candidates:
        raise FileNotFoundError(f"no results of profile {profile}; make them: ./run_all.sh --profile {profile}")
    return max(candidates, key=lambda path: path.stat().st_mtime)


def render(template: str, context: dict[str, Any]) -> str:
    """Return a template of this package, filled in; every name it uses must be in `context`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paperlab.lab"),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**context)


def _scorecard_context(profile: str) -> dict[str, Any]:
    judgments = scorecard.judge_all(scorecard.scorecard_folders(profile))
    return {
        "summary": scorecard.summary(judgments),
        "claims": scorecard.details(judgments),
        "markdown": tables.to_markdown,
    }


def _context(folder: Path) -> dict[str, Any]:
    profile = folder.name
    return {
        **_scorecard_context(profile),
        "profile": profile,
        "runs": [_run_context(path) for path in scorecard.run_folders(folder)],
    }


def _run_context(folder: Path) -> dict[str, Any]:
    artifacts, findings = read_index(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    return {
        "name": folder.name,
        "title": title_of(folder.name),
        "manifest": manifest,
        "findings": findings,
        "artifacts": [{**vars(item), "rows": _rows(folder, item.name)} for item in artifacts],
    }


def _rows(folder: Path, name: str) -> list[list[str]] | None:
    """Return a table's header and rows for printing, or None where it is too long."""
    frame = tables.read_csv((folder / f"{name}.csv").read_text())
    if len(frame) > _SHOWN_ROWS:
        return None
    return [list(frame.columns), *tables.readable(frame).to_numpy().tolist()]


def scorecard_text(profile: str) -> str:
    """Return the scorecard's summary as plain text for a terminal."""
    return str(_scorecard_context(profile)["summary"].to_string(index=False))


def cost_line(manifest: Path) -> str:
    """Return what a run cost beside its budgets, in one line."""
    cost = json.loads(manifest.read_text())
    budget = cost["budget"]
    return (
        f"{cost['wall_s'] / 60:.1f} of {budget['minutes']} min, "
        f"{cost['peak_rss_GiB']} of {budget['memory_GiB']} GiB, {len(cost['outputs'])} files"
    )
