"""The manifest of a run: everything that says where its results come from."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paperlab.hardware import host_class
from paperlab.lab.files import sha256
from paperlab.lab.inputs import notebook_inputs, notebook_settings, relative
from paperlab.lab.paths import repo_root
from paperlab.lab.profiles import Profile

_TRANSIENT = {"executed.ipynb", "worker.log", "manifest.json"}


def build_manifest(
    notebook: str,
    profile: Profile,
    parameters: dict[str, Any],
    folder: Path,
    wall_s: float,
    peak_rss_GiB: float,
) -> dict[str, Any]:
    """Return the manifest of the run whose results lie in `folder`, ready for JSON."""
    return {
        "notebook": notebook,
        "profile": profile.name,
        "parameters": parameters,
        "settings": notebook_settings(notebook, profile.name),
        "started_utc": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "wall_s": round(wall_s, 1),
        "peak_rss_GiB": round(peak_rss_GiB, 2),
        "budget": {"minutes": profile.notebook_minutes, "memory_GiB": profile.memory_GiB},
        "commit": git_commit(),
        "host": host_class(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "inputs": {relative(path): sha256(path) for path in notebook_inputs(notebook)},
        "outputs": output_hashes(folder),
    }


def output_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every published file of a run, by path below its folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _TRANSIENT)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def git_commit() -> str:
    """Return the checkout's commit, with `-dirty` where tracked files differ, or `unknown` outside git."""
    command = ["git", "-C", str(repo_root()), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that paperlab declares."""
    requirements = importlib.metadata.requires("paperlab") or []
    names = [re.split(r"[^\w.-]", text)[0] for text in requirements if "extra ==" not in text]
    versions = {}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a GPU machine may lack the notebook tools
            versions[name] = "absent"
    return versions
