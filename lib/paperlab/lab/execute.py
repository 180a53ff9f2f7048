"""Run one notebook headlessly: strict parameters, enforced budgets, a manifest, and all or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperlab.lab.alone import alone
from paperlab.lab.files import write_json
from paperlab.lab.manifest import build_manifest
from paperlab.lab.notebooks import check_parameters, notebook_path
from paperlab.lab.paths import results_dir
from paperlab.lab.profiles import Profile, get_profile
from paperlab.lab.record import STAGING

EXECUTED = "executed.ipynb"
MANIFEST = "manifest.json"
_POLL_S = 0.2
_GiB = 2**30


class NotebookError(RuntimeError):
    """A notebook failed, died or passed a budget; the message says where and what to do."""


@dataclass(frozen=True)
class Usage:
    """What one execution cost."""

    wall_s: float
    peak_rss_GiB: float


def folder_name(profile: Profile) -> str:
    """Return the name of a profile's result folder: its own, or for `gpu` the device's short name (`h200`).

    Raises:
        NotebookError: the profile needs a CUDA device and there is none.
    """
    if profile.device != "cuda":
        return profile.name
    import torch

    if not torch.cuda.is_available():
        raise NotebookError(f"profile {profile.name} needs a CUDA device and there is none; use --profile cpu")
    return torch.cuda.get_device_name().split()[-1].lower()


def execute(notebook: str, profile: str, parameters: dict[str, Any] | None = None, results: Path | None = None) -> Path:
    """Run `notebook` and publish its results; return the folder they are in.

    Results are gathered in a staging folder that replaces the published one at the end, so a killed or failing
    run leaves the former results as they were.

    Args:
        notebook: stem, such as `41_tempo_experiments`.
        profile: row of the profile table.
        parameters: further values for the notebook's parameter cell.
        results: publish below this folder instead of the repository's results.

    Raises:
        ValueError: unknown profile or parameter, or a value of the wrong type.
        NotebookError: a cell raised, the kernel died, or a budget was passed.
    """
    chosen = get_profile(profile)
    values = check_parameters(notebook, {**(parameters or {}), "profile": profile})
    target = (results or results_dir()) / folder_name(chosen) / notebook
    with alone(target):  # a run whose starter was killed may still be at it
        staging = _fresh(target.parent / ".staging" / notebook)
        usage = _run(notebook, chosen, values, staging)
        manifest = build_manifest(notebook, chosen, values, staging, usage.wall_s, usage.peak_rss_GiB)
        write_json(staging / MANIFEST, manifest)
        _replace(staging, target)
    return target


def _fresh(folder: Path) -> Path:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise PermissionError(
            f"cannot write {folder}: {error.strerror}; make results/ writable or set PAPERLAB_RESULTS"
        ) from error
    return folder


def _replace(staging: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    staging.replace(target)
    if not any(staging.parent.iterdir()):
        staging.parent.rmdir()


def _environment(profile: Profile, staging: Path) -> dict[str, str]:
    fixed = {
        STAGING: str(staging),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",  # nothing is downloaded at run time
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # ipykernel's debugger warns about frozen modules otherwise
        "OMP_NUM_THREADS": str(profile.threads),  # the order of a sum depends on it, so it is part of the profile
    }
    if profile.device == "cpu":
        fixed["TRITON_INTERPRET"] = "1"
    return {**os.environ, **fixed}


def _run(notebook: str, profile: Profile, values: dict[str, Any], staging: Path) -> Usage:
    output = staging / EXECUTED
    command = [sys.executable, "-m", "paperlab.lab.worker", str(notebook_path(notebook)), str(output)]
    with (staging / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [*command, json.dumps(values)], env=_environment(profile, staging), stdout=log, stderr=log
        )
        try:
            usage, broken = _watch(process, profile)
        finally:
            _kill_tree(process.pid)
            process.wait()
    if broken:
        raise NotebookError(f"{notebook}: {broken}")
    if process.returncode:
        raise NotebookError(_explain(notebook, output, staging / "worker.log"))
    (staging / "worker.log").unlink()
    return usage


def _watch(process: subprocess.Popen[bytes], profile: Profile) -> tuple[Usage, str]:
    """Wait for `process`; return its usage and, where it passed a budget, which one."""
    started, peak = time.monotonic(), 0
    while True:
        peak = max(peak, _tree_rss(process.pid))
        minutes = (time.monotonic() - started) / 60
        usage = Usage(minutes * 60, peak / _GiB)
        if process.poll() is not None:
            return usage, ""
        if minutes > profile.notebook_minutes:
            return usage, f"passed its time budget of {profile.notebook_minutes} min (profile {profile.name})"
        if usage.peak_rss_GiB > profile.memory_GiB:
            return usage, f"passed its memory budget of {profile.memory_GiB} GiB (profile {profile.name})"
        time.sleep(_POLL_S)


def _tree(pid: int) -> list[Any]:
    import psutil

    try:
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def _tree_rss(pid: int) -> int:
    import psutil

    total = 0
    for process in _tree(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between listing and reading
            continue
    return total


def _kill_tree(pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).suspend()  # it must not start a kernel between the listing and the end
    for process in _tree(pid):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _explain(notebook: str, output: Path, log: Path) -> str:
    """Say which cell failed and with what, or that the kernel died."""
    where = f"see {output}"
    if output.exists():
        cells = [cell for cell in json.loads(output.read_text())["cells"] if cell["cell_type"] == "code"]
        for number, cell in enumerate(cells, 1):
            errors = [item for item in cell["outputs"] if item["output_type"] == "error"]
            if errors:
                raised = f"{errors[0]['ename']}: {errors[0]['evalue']}"
                return f"{notebook}: code cell {number} raised {raised} ({where})"
    text = log.read_text()
    if "DeadKernelError" in text:
        return f"{notebook}: the kernel died, most likely killed for memory; {where} for the last cell that ran"
    return f"{notebook}: papermill failed: {text.strip().splitlines()[-1] if text.strip() else 'no output'}"
