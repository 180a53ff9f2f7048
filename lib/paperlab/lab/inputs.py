"""What a notebook's results depend on: itself, the library files it can reach, and their data.

Reach is the static import graph from the notebook's own import statements, so that a change in one system
never makes another system's results stale.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from paperlab.lab.notebooks import code_of, notebook_path, system_of
from paperlab.lab.paths import data_dir, repo_root, results_dir
from paperlab.lab.profiles import get_profile

# Folders below data/ that a package reads, where they are not just the one of its own name.
_DATA_FOLDERS = {"serving": ("serving", "workloads")}


def _package_root() -> Path:
    return Path(__file__).resolve().parents[1]


def _module_file(module: str) -> Path | None:
    """Return the file of a `paperlab...` module name, or None where it names no module."""
    base = _package_root().joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported(source: str) -> set[str]:
    """Return the `paperlab...` names that `source` imports anywhere, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import name` may name a submodule as well as an attribute.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "paperlab"}


@cache
def _imports_of_file(file: Path) -> frozenset[str]:
    return frozenset(_imported(file.read_text()))


def reachable_files(source: str) -> list[Path]:
    """Return the library files that `source` can import, directly or through others, sorted."""
    seen: set[Path] = set()
    queue = list(_imported(source))
    while queue:
        name = queue.pop()
        # Importing a.b.c runs a and a.b as well.
        parents = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        for file in filter(None, map(_module_file, parents)):
            if file not in seen:
                seen.add(file)
                queue.extend(_imports_of_file(file))
    return sorted(seen)


def notebook_inputs(notebook: str) -> list[Path]:
    """Return every file that a notebook's results depend on, sorted; settings come from `notebook_settings`."""
    files = reachable_files(code_of(notebook))
    packages = {file.relative_to(_package_root()).parts[0] for file in files}
    folders = [folder for name in sorted(packages) for folder in _DATA_FOLDERS.get(name, (name,))]
    data = [path for folder in folders for path in (data_dir() / folder).rglob("*") if path.is_file()]
    ledger = data_dir() / "claims" / f"{system_of(notebook)}.csv"
    # Tables that a GPU machine left behind for this system are read by its notebooks wherever they run.
    gpu = results_dir().glob(f"*/{system_of(notebook)}_gpu/*.csv")
    return sorted([notebook_path(notebook), *files, *data, *gpu, *([ledger] if ledger.is_file() else [])])


def notebook_settings(notebook: str, profile: str) -> dict[str, Any]:
    """Return the settings of the notebook's system in `profile`, which its results depend on too."""
    return get_profile(profile).settings.get(system_of(notebook) or "", {})


def relative(path: Path) -> str:
    """Return `path` relative to the repository where it lies inside, else unchanged."""
    root = repo_root().resolve()
    resolved = path.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(path)
