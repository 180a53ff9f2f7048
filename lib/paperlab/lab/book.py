"""The book: an offline site from the executed notebooks of one profile, with the scorecard as its front page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab import scorecard, tables
from paperlab.lab.execute import EXECUTED
from paperlab.lab.files import write_atomic
from paperlab.lab.notebooks import system_of, title_of
from paperlab.lab.paths import results_dir
from paperlab.lab.record import read_index
from paperlab.lab.report import render, result_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

TITLES = {
    "nexus": "Nexus", "mist": "Mist", "seesaw": "Seesaw", "tempo": "Tempo", "aquant": "AQuant",
    "rgbd_grasp": "RGBD-Grasp", "across": "Across systems",
}  # fmt: skip


def write_book(profile: str, out: Path | None = None) -> Path:
    """Build the book of `profile` below `out` (default: `results/book`) and return its front page.

    Raises:
        FileNotFoundError: the profile has no executed notebooks; they are never committed, so it must run first.
        RuntimeError: Sphinx found something wrong, where every warning counts, or the extra `book` is not installed.
    """
    folder = result_folder(profile)
    chapters = [path for path in scorecard.run_folders(folder) if (path / EXECUTED).exists()]
    if not chapters:
        raise FileNotFoundError(
            f"no executed notebooks of profile {profile}; make them: ./run_all.sh --profile {profile}"
        )
    out = (out or results_dir() / "book").resolve()
    source = out / "source"
    shutil.rmtree(source, ignore_errors=True)
    _write_sources(source, profile, chapters)
    _run_sphinx(source, out / "html")
    return out / "html" / "index.html"


def _write_sources(source: Path, profile: str, chapters: list[Path]) -> None:
    judgments = scorecard.judge_all(scorecard.scorecard_folders(profile))
    summary, claims = scorecard.summary(judgments), scorecard.details(judgments)
    summary = summary[summary.claims > 0]
    context = {"summary": summary, "parts": _parts(chapters), "systems": list(judgments), "titles": TITLES}
    write_atomic(source / "index.md", render("book_index.md.j2", {**context, "markdown": tables.to_markdown}))
    shown = {finding.claim_id: path.name for path in chapters for finding in read_index(path)[1]}
    titles = {path.name: title_of(path.name) for path in chapters}
    for system in judgments:
        rows = claims[claims.system == system].to_dict("records")
        context = {"title": TITLES[system], "claims": rows, "shown": shown, "titles": titles}
        write_atomic(source / f"claims_{system}.md", render("book_claims.md.j2", context))
    for path in chapters:
        write_atomic(source / f"{path.name}.ipynb", _chapter(path))
    for name, target in (("book_conf.py", "conf.py"), ("book.css", "_static/book.css")):
        write_atomic(source / target, resources.files("paperlab.lab").joinpath("templates", name).read_text())


def _parts(chapters: list[Path]) -> list[dict[str, Any]]:
    """Return the table of contents: a part per system in the notebooks' order, what belongs to none first and last."""
    parts: list[dict[str, Any]] = []
    for path in chapters:
        system = system_of(path.name)
        caption = TITLES[system] if system else ("Start" if path.name.startswith("0") else "All systems")
        if not parts or parts[-1]["caption"] != caption:
            parts.append({"caption": caption, "pages": []})
        parts[-1]["pages"].append({"name": path.name, "title": title_of(path.name)})
    return parts


def _chapter(folder: Path) -> str:
    """Return an executed notebook as a chapter: captions as alternative texts, and no words of papermill's."""
    import nbformat

    node = nbformat.read(folder / EXECUTED, as_version=4)
    captions = {item.name: item.caption for item in read_index(folder)[0] if item.kind == "figure"}
    for cell in node.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.metadata["mystnb"] = {"image": {"alt": _alternative(cell, captions)}}
    node.metadata.pop("papermill", None)
    return str(nbformat.writes(node)) + "\n"


def _alternative(cell: NotebookNode, captions: dict[str, str]) -> str:
    """Return the captions of the figures that a cell saves, or what else its picture is."""
    saved = [captions[name] for name in re.findall(r'"(\w+)"', cell.source) if name in captions]
    return " ".join(saved) or "Picture drawn by the code above."


def _run_sphinx(source: Path, html: Path) -> None:
    # -W: a broken link or a missing picture must not pass; -E: no state of a former build.
    options = ["-b", "html", "-E", "-q", "-W", "--keep-going"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(source), str(html)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the book in {source} has errors:\n{done.stderr.strip()}")
