"""The laboratory: profiles, recorded results with their evidence, claims, headless runs, reports.

A notebook needs `start` alone; the rest serves the command line and the Snakefile.

    profiles.py, profiles.toml   how much work a run does
    record.py, tables.py, style.py   what a notebook saves
    claims.py, scorecard.py      what papers claim and how it came out
    notebooks.py, inputs.py, exercises.py   the notebooks as files
    execute.py, worker.py, manifest.py      headless execution
    report.py, trace.py, verify.py, cli.py  after the run
    gpu_run.py, timing.py        what only a GPU can show: resumable runs, clocks
    alone.py                     one run at a time
    cache.py                     keys of what is kept by content
    locks.py, conventions.py     the house's own rules, checked
"""

from paperlab.lab.evidence import Evidence
from paperlab.lab.record import Run, start

__all__ = ["Evidence", "Run", "start"]
