"""All that only a GPU can show, in one resumable, time-boxed run.

    python -m paperlab.tempo.gpu_evidence --out DIR --minutes 9

Each stage is a table DIR/<stage>.csv, written anew after every cell; a later run on the same folder goes on where
the last one stopped, and tries again what failed. DIR/provenance.json tells of each run the device, the versions
and the commit; column `run` refers to it. With --smoke tiny models run through every stage, on any machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from paperlab import hardware
from paperlab.lab.files import write_atomic, write_json
from paperlab.lab.manifest import git_commit
from paperlab.lab.tables import read_csv, to_csv
from paperlab.tempo.memory.probe import CUBLAS_WORKSPACE
from paperlab.tempo.speed.fresh import Caller, CallFailed
from paperlab.tempo.speed.gpu_cells import Bench
from paperlab.tempo.speed.gpu_stages import FULL, STAGES, Cell, Scope, Stage, smoke, stages
from paperlab.tempo.speed.throughput import FAILED
from paperlab.tempo.speed.timing import default_device, machine

PACKAGES = ("torch", "triton", "transformers", "numpy", "pandas")


class Runner:
    """Runs cells until the time is up and keeps the tables of `folder` up to date."""

    def __init__(self, folder: Path, end_s: float, run: str) -> None:
        self.folder, self.end_s, self.run = folder, end_s, run
        self.longest_s: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def read(self, name: str) -> pd.DataFrame:
        """Return the table of a stage, empty where it has none."""
        path = self.folder / f"{name}.csv"
        return read_csv(path.read_text()) if path.exists() else pd.DataFrame()

    def missing(self, stage: Stage) -> list[Cell]:
        """Return the cells of a stage that have no rows yet, or rows that failed."""
        table = self.read(stage.name)
        if table.empty:
            return list(stage.cells)
        failed = set(table.cell[table.status.str.startswith(FAILED)]) if "status" in table else set()
        return [cell for cell in stage.cells if cell.name not in set(table.cell) - failed]

    def work_on(self, stage: Stage, until_s: float) -> None:
        """Measure the missing cells of a stage, as long as the longest so far would still fit in."""
        for cell in self.missing(stage):
            key = f"{stage.name}: {cell.name}"
            if key in self.failures:
                continue
            if time.monotonic() + self.longest_s.get(stage.name, 0.0) >= min(until_s, self.end_s):
                return
            begin_s = time.monotonic()
            try:
                outcome = self._keep(stage.name, cell.name, cell.measure())
            except Exception as error:  # one broken cell must not cost the others their time on the device
                if time.monotonic() >= self.end_s:
                    return
                outcome = self.failures[key] = f"{type(error).__name__}: {error}"
            took_s = time.monotonic() - begin_s
            self.longest_s[stage.name] = max(self.longest_s.get(stage.name, 0.0), took_s)
            print(f"{key}: {outcome} ({took_s:.1f} s)", flush=True)

    def _keep(self, stage: str, cell: str, rows: pd.DataFrame) -> str:
        if rows.empty:
            return "waits for an earlier stage"
        table, rows = self.read(stage), rows.assign(cell=cell, run=self.run)
        table = rows if table.empty else pd.concat([table[table.cell != cell], rows], ignore_index=True)
        write_atomic(self.folder / f"{stage}.csv", to_csv(table))
        broken = rows[rows.status.str.startswith(FAILED)] if "status" in rows else rows[:0]
        if broken.empty:
            return "done"
        self.failures[f"{stage}: {cell}"] = reason = f"{broken.arm.iloc[0]}: {broken.status.iloc[0]}"
        return reason


def provenance(device: str, commit: str, run: str) -> dict[str, Any]:
    """Describe a run: machine, driver, versions, commit, and the settings that decide about memory."""
    settings = ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    return {
        "run": run,
        "device": device,
        "host": hardware.host_class(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "settings": {name: os.environ.get(name, "") for name in settings},
        "arguments": sys.argv[1:],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def working_caller(device: str, end_s: float) -> Caller:
    """Return a caller whose processes can use the device: forked where that works, spawned otherwise."""
    caller = Caller("forkserver", end_s)
    try:
        caller(machine, device, timeout_s=120)
    except (CallFailed, TimeoutError) as error:
        print(f"processes are spawned, since forked ones fail: {error}", flush=True)
        return Caller("spawn", end_s)
    return caller


def gather(scope: Scope, folder: Path, minutes: float, commit: str, device: str, only: Sequence[str] = ()) -> int:
    """Run the stages (`only` some of them) on `device` for `minutes`; return the number of failures.

    Every stage gets its share of the time; what is left over goes to whatever is missing, in order.
    """
    run = datetime.now(UTC).replace(microsecond=0).isoformat()
    begin_s = time.monotonic()
    runner = Runner(folder, begin_s + 60 * minutes, run)
    bench = Bench(device, scope.repeat, working_caller(device, runner.end_s), runner.read)
    plan = [stage for stage in stages(scope, bench) if not only or stage.name in only]
    history = folder / "provenance.json"
    runs = json.loads(history.read_text()) if history.exists() else []
    write_json(history, [*runs, provenance(device, commit, run)])
    for stage in plan:
        runner.work_on(stage, time.monotonic() + stage.share * 60 * minutes)
    for stage in plan:
        runner.work_on(stage, runner.end_s)
    for stage in plan:
        missing = len(runner.missing(stage))
        print(f"{stage.name}: {len(stage.cells) - missing} of {len(stage.cells)} cells")
    for key, reason in runner.failures.items():
        print(f"failed: {key}: {reason}")
    return len(runner.failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a cell failed, 0 where the time merely ran out."""
    parser = argparse.ArgumentParser(prog="python -m paperlab.tempo.gpu_evidence", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables; give it again to go on")
    parser.add_argument("--minutes", type=float, default=9.0, help="time box (default 9)")
    parser.add_argument("--only", nargs="+", default=(), metavar="STAGE", choices=STAGES, help=", ".join(STAGES))
    parser.add_argument("--commit", help="commit of this code, where git cannot tell")
    parser.add_argument("--smoke", action="store_true", help="tiny models, on any machine")
    options = parser.parse_args(arguments)
    device = default_device()
    if device != "cuda" and not options.smoke:
        parser.error("no CUDA device was found; --smoke rehearses on a CPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    scope = smoke(device) if options.smoke else FULL
    failures = gather(scope, options.out, options.minutes, options.commit or git_commit(), device, options.only)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
