"""The GPU run, rehearsed on whatever is here: fresh processes, resumption, the time box, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

from paperlab.lab.gpu_run import Box
from paperlab.lab.tables import read_csv
from paperlab.tempo import gpu_evidence
from paperlab.tempo.gpu_evidence import gather, main
from paperlab.tempo.speed import gpu_cells
from paperlab.tempo.speed.fresh import Caller, CallFailed
from paperlab.tempo.speed.gpu_cells import Bench, largest_batch
from paperlab.tempo.speed.gpu_stages import FULL, STAGES, smoke, stages
from paperlab.tempo.speed.throughput import Timing
from paperlab.tempo.speed.workloads import Workload

SCOPE = replace(smoke("cpu"), repeat=Timing(1, 1, 1))
touched = []


def in_process(function, *args, timeout_s, **kwargs):
    return function(*args, **kwargs)


def unexpected(*args):
    raise AssertionError("measured again")


def touch(value):
    touched.append(value)
    return touched


def run_python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment).stdout


def test_calls_run_in_fresh_processes():
    call = Caller()
    assert [call(touch, value, timeout_s=60) for value in (1, 2)] == [[1], [2]]
    assert touched == []
    with pytest.raises(CallFailed, match="ValueError: invalid literal"):
        call(int, "one", timeout_s=60)
    with pytest.raises(CallFailed, match="_exit died with exit status 3"):
        call(os._exit, 3, timeout_s=60)
    with pytest.raises(TimeoutError, match="sleep was stopped after 0 s"):
        call(time.sleep, 60, timeout_s=0.2)
    with pytest.raises(TimeoutError):
        Caller(end_s=time.monotonic() + 0.2)(time.sleep, 60, timeout_s=60)


def test_preloading_leaves_the_gpu_alone():
    """A process that has asked CUDA anything cannot fork children that use it."""
    code = """
import importlib, torch
names = ["is_available", "device_count", "init", "_lazy_init", "get_device_properties", "get_device_capability"]
asked = []
for name in names:
    setattr(torch.cuda, name, lambda *a, name=name, **k: asked.append(name))
from paperlab.tempo.speed.fresh import PRELOAD
for module in PRELOAD:
    importlib.import_module(module)
print(asked)
"""
    assert run_python(code).strip() == "[]"


def test_it_needs_none_of_the_notebook_tools():
    code = """
import sys
for name in ("papermill", "ipykernel", "IPython", "jupytext", "nbformat", "jinja2", "snakemake", "ipywidgets"):
    sys.modules[name] = None
from paperlab.tempo import gpu_evidence
gpu_evidence.main(["--help"])
"""
    assert "time box" in run_python(code)


def test_rehearsed_largest_batch_equals_the_capacity_model():
    bench = Bench("cpu", Timing(1, 1, 1), in_process, lambda name: pd.DataFrame())
    for arm in ("eager, modern", "eager, paper era", "Tempo", "checkpoint"):
        row = largest_batch(bench, Workload("tiny BERT", 32), SCOPE.cards[0], arm).iloc[0]
        assert row.measured_batch == row.model_batch > 0
        assert row.failed_batch == row.measured_batch + 1
        assert row.probes == 2
        assert row.allocated_bytes <= row.memory_bytes
        assert row.evidence == "measured-cpu"


def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_evidence, "working_caller", lambda device, end_s: in_process)
    folder = tmp_path / "a folder"
    assert gather(SCOPE, Box(folder, 5, "abc", "cpu")) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES if name != "compiled"}
    for name, table in tables.items():
        assert table.evidence.eq("measured-cpu").all(), name
        assert table.device.notna().all()
        assert "status" not in table or table.status.eq("ok").all()
    largest, timed = (
        tables[name].query("model == 'tiny BERT' and precision == 'fp32'").set_index("arm")
        for name in ("largest_batch", "at_largest_batch")
    )
    assert timed.batch.to_dict() == largest.measured_batch.to_dict()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert [run["commit"] for run in provenance] == ["abc"]
    assert set(tables["one_batch"].run) == {provenance[0]["run"]}

    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(gpu_cells, "largest_batch", unexpected)
    monkeypatch.setattr(gpu_cells, "kernels", unexpected)
    assert gather(SCOPE, Box(folder, 5, "def", "cpu", ("largest_batch", "kernels"))) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}
    assert "kernels: 2 of 2 cells" in capsys.readouterr().out


def test_results_wait_for_what_they_build_on():
    bench = Bench("cpu", Timing(1, 1, 1), in_process, lambda name: pd.DataFrame())
    (stage,) = [stage for stage in stages(SCOPE, bench) if stage.name == "at_largest_batch"]
    assert all(cell.measure().empty for cell in stage.cells)


def test_cells_have_names_of_their_own():
    bench = Bench("cuda", FULL.repeat, in_process, lambda name: pd.DataFrame())
    for scope in (FULL, smoke("cuda")):
        for stage in stages(scope, bench):
            names = [cell.name for cell in stage.cells]
            assert len(set(names)) == len(names), stage.name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_the_rehearsal_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "no CUDA device was found; --smoke rehearses on a CPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--only", "everything"])


@pytest.mark.slow
def test_the_command_line_end_to_end(tmp_path):
    command = [
        sys.executable,
        "-m",
        "paperlab.tempo.gpu_evidence",
        "--smoke",
        "--out",
        str(tmp_path),
        "--minutes",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "largest_batch: 15 of 15 cells" in done.stdout
    assert "processes are spawned" not in done.stdout
    assert {path.stem for path in tmp_path.glob("*.csv")} == set(STAGES) - {"compiled"}
