"""Where things are: the repository's folders, each overridable by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path


def repo_root() -> Path:
    """Return the repository's root: `PAPERLAB_ROOT`, else the checkout this package is installed from.

    Raises:
        FileNotFoundError: the folder holds no `notebooks/`, as when a wheel was installed without a checkout.
    """
    root = Path(os.environ.get("PAPERLAB_ROOT") or Path(__file__).resolve().parents[3])
    if not (root / "notebooks").is_dir():
        raise FileNotFoundError(
            f"{root} has no notebooks/; install paperlab editable from its checkout or set PAPERLAB_ROOT to it"
        )
    return root


def data_dir() -> Path:
    """Return the folder of committed inputs: `PAPERLAB_DATA`, else `data/` of the checkout."""
    return Path(os.environ.get("PAPERLAB_DATA") or repo_root() / "data")


def results_dir() -> Path:
    """Return the folder of results: `PAPERLAB_RESULTS`, else `results/` of the checkout."""
    return Path(os.environ.get("PAPERLAB_RESULTS") or repo_root() / "results")


def cache_dir() -> Path:
    """Return the folder of what can be made again, as trained networks: `PAPERLAB_CACHE`, else `~/.cache/paperlab`."""
    return Path(os.environ.get("PAPERLAB_CACHE") or Path.home() / ".cache" / "paperlab")


def notebooks_dir() -> Path:
    """Return the folder of the numbered notebooks."""
    return repo_root() / "notebooks"
