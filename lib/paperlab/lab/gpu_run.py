"""What only a GPU can show, in resumable, time-boxed runs: cells, stages, tables, provenance, the command line.

Each stage is a table FOLDER/<stage>.csv, written anew after every cell; a later run on the same folder goes on where
the last one stopped, and tries again what failed. FOLDER/provenance.json tells of each run the device, the versions
and the commit; column `run` refers to it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from paperlab import hardware
from paperlab.lab import timing
from paperlab.lab.files import write_atomic, write_json
from paperlab.lab.manifest import git_commit
from paperlab.lab.tables import read_csv, to_csv

if TYPE_CHECKING:
    import pandas as pd

FAILED = "failed"  # how the `status` of a row begins that is to be measured again
PACKAGES = ("torch", "triton", "transformers", "numpy", "pandas")


@dataclass(frozen=True)
class Cell:
    """Rows that are measured at once; an empty table says that what they build on is not there yet."""

    name: str
    measure: Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class Stage:
    """One table: its file name, the share of the time that is kept for it, and its cells in order of value."""

    name: str
    share: float
    cells: tuple[Cell, ...]


class Runner:
    """Runs cells until the time is up and keeps the tables of `folder` up to date."""

    def __init__(self, folder: Path, end_s: float, run: str) -> None:
        self.folder, self.end_s, self.run = folder, end_s, run
        self.longest_s: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def read(self, name: str) -> pd.DataFrame:
        """Return the table of a stage, empty where it has none."""
        import pandas as pd

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
        import pandas as pd

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


def provenance(device: str, commit: str, run: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a run: machine, driver, versions, commit, and the environment's `settings` that decide about it."""
    import torch

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


class Box(NamedTuple):
    """Where a run keeps its tables, how long it may take, and whose code it is."""

    folder: Path
    minutes: float
    commit: str
    device: str
    only: Sequence[str] = ()  # names of stages; empty: all


def gather(make: Callable[[Runner], Sequence[Stage]], box: Box, settings: Sequence[str] = ()) -> int:
    """Run the stages that `make` returns within the box; return the number of failures.

    Every stage gets its share of the time; what is left over goes to whatever is missing, in order.
    """
    run = datetime.now(UTC).replace(microsecond=0).isoformat()
    begin_s = time.monotonic()
    runner = Runner(box.folder, begin_s + 60 * box.minutes, run)
    plan = [stage for stage in make(runner) if not box.only or stage.name in box.only]
    history = box.folder / "provenance.json"
    runs = json.loads(history.read_text()) if history.exists() else []
    write_json(history, [*runs, provenance(box.device, box.commit, run, settings)])
    for stage in plan:
        runner.work_on(stage, time.monotonic() + stage.share * 60 * box.minutes)
    for stage in plan:
        runner.work_on(stage, runner.end_s)
    for stage in plan:
        missing = len(runner.missing(stage))
        print(f"{stage.name}: {len(stage.cells) - missing} of {len(stage.cells)} cells")
    for key, reason in runner.failures.items():
        print(f"failed: {key}: {reason}")
    return len(runner.failures)


def command_line(
    module: str, summary: str, stages: Sequence[str], arguments: Sequence[str] | None = None
) -> tuple[Box, bool]:
    """Parse what every GPU run takes; returns the box and whether it is the rehearsal with tiny models.

    Exits with a message where there is no GPU and no rehearsal was asked for.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=summary)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables; give it again to go on")
    parser.add_argument("--minutes", type=float, default=9.0, help="time box (default 9)")
    parser.add_argument("--only", nargs="+", default=(), metavar="STAGE", choices=stages, help=", ".join(stages))
    parser.add_argument("--commit", help="commit of this code, where git cannot tell")
    parser.add_argument("--smoke", action="store_true", help="tiny models, on any machine")
    options = parser.parse_args(arguments)
    device = timing.default_device()
    if device != "cuda" and not options.smoke:
        parser.error("no CUDA device was found; --smoke rehearses on a CPU")
    box = Box(options.out, options.minutes, options.commit or git_commit(), device, options.only)
    return box, options.smoke


@contextmanager
def stopped_at(end_s: float) -> Iterator[None]:
    """Raise TimeoutError in the block when the monotonic clock reaches `end_s`; for the main thread."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("the time box is over")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(end_s - time.monotonic(), 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
