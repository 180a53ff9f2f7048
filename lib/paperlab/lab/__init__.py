"""The laboratory: profiles, recorded results with their evidence, claims, headless runs, reports.

A notebook needs `start` alone; the rest serves the command line and the Snakefile.

    profiles.py, profiles.toml              how much work a run does
    record.py, evidence.py, tables.py       what a notebook saves, and its class of evidence
    style.py, panel.py                      the look of figures; sliders, or a grid where nobody moves them
    claims.py, scorecard.py                 what papers claim and how it came out
    notebooks.py, inputs.py, exercises.py   the notebooks as files
    execute.py, worker.py, manifest.py      headless execution
    alone.py, cache.py                      one run at a time; keys of what is kept by content
    report.py, book.py, trace.py, verify.py after the run; cli.py is the command line
    gpu_run.py, timing.py                   what only a GPU can show: resumable runs, clocks
    paths.py, files.py, seeding.py, workers.py   places, atomic writes, seeds, processes
    locks.py, conventions.py                the house's own rules, checked
"""

from paperlab.lab.evidence import Evidence
from paperlab.lab.record import Run, start

__all__ = ["Evidence", "Run", "start"]
