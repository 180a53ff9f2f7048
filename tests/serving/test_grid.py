"""Grids of simulations: rows in order, labels in front, and no worker outlives a killed parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil

from paperlab.serving.grid import Cell, run_cells

CELLS = [Cell("vllm-like", "qwen2.5-3b", "L20", "ldc", rate, 4, 0, columns={"arm": rate}) for rate in (1.0, 4.0)]


def test_rows_come_in_the_order_of_the_cells_with_their_labels():
    rows = run_cells(CELLS)
    assert list(rows.arm) == list(rows.rate_per_s) == [1.0, 4.0]
    assert rows.columns[0] == "arm"


def test_all_at_once_has_no_rate():
    row = run_cells([Cell("vllm-like", "qwen2.5-3b", "L20", "ldc", None, 4, 0)]).iloc[0]
    assert row.finished == 4


ENDLESS = """
from paperlab.serving.grid import Cell, run_cells
if __name__ == "__main__":
    cells = [Cell("vllm-like", "qwen2.5-3b", "L20", "ldc", 0.5, 20000, seed) for seed in range(2)]
    run_cells(cells, workers=2)
"""


def test_no_worker_outlives_a_killed_parent(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "endless.py")])
    workers = []
    while len(workers) < 2 and parent.poll() is None:
        workers = [item for item in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(item.cmdline())]
        time.sleep(0.1)
    time.sleep(3)  # they have begun
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive
