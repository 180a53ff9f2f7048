"""GPU runs in general: broken cells, the time box, resumption; measured by made-up cells."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from paperlab.lab.gpu_run import Cell, Runner, Stage

ROWS = pd.DataFrame({"arm": ["a"], "status": ["ok"]})


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path, time.monotonic() + 100, "now")


def test_a_broken_cell_costs_no_other_and_is_tried_again(runner):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access")

    stage = Stage("s", 1.0, (Cell("bad", broken), Cell("good", lambda: ROWS)))
    runner.work_on(stage, runner.end_s)
    assert runner.read("s").cell.tolist() == ["good"]
    assert runner.failures == {"s: bad": "RuntimeError: CUDA error: an illegal memory access"}
    again = Runner(runner.folder, runner.end_s, "later")
    assert [cell.name for cell in again.missing(stage)] == ["bad"]


def test_a_cell_with_a_failed_row_is_kept_and_measured_again(runner):
    failed = ROWS.assign(status="failed: RuntimeError: x")
    runner.work_on(Stage("s", 1.0, (Cell("c", lambda: failed),)), runner.end_s)
    assert runner.failures == {"s: c": "a: failed: RuntimeError: x"}
    again = Runner(runner.folder, runner.end_s, "later")
    stage = Stage("s", 1.0, (Cell("c", lambda: ROWS),))
    again.work_on(stage, again.end_s)
    table = again.read("s")
    assert table.status.tolist() == ["ok"]
    assert table.run.tolist() == ["later"]
    assert again.missing(stage) == []


def test_the_time_box_is_kept(runner):
    def measured(number):
        def measure():
            calls.append(number)
            time.sleep(0.3)
            return ROWS

        return measure

    calls: list[int] = []
    stage = Stage("s", 1.0, tuple(Cell(f"cell {n}", measured(n)) for n in range(5)))
    runner.work_on(stage, time.monotonic() + 0.5)  # a second one would end after the box
    assert calls == [0]
    runner.work_on(stage, time.monotonic())
    assert calls == [0]
    runner.work_on(stage, runner.end_s)
    assert calls == [0, 1, 2, 3, 4]


def test_what_the_end_cuts_off_is_missing_and_not_failed(tmp_path):
    runner = Runner(tmp_path, time.monotonic() + 0.1, "now")

    def cut_off():
        time.sleep(0.2)
        raise TimeoutError("stopped")

    runner.work_on(Stage("s", 1.0, (Cell("c", cut_off),)), runner.end_s)
    assert runner.failures == {}
