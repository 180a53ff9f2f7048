"""The GPU run, rehearsed on whatever is here: every stage, resumption, the time box in the middle of a cell."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest
import torch

from paperlab.aquant import gpu_evidence
from paperlab.aquant.deploy.cost import overheads
from paperlab.aquant.gpu import bench as measure
from paperlab.aquant.gpu.bench import FULL, METHODS, Bench, exact_convolutions, smoke
from paperlab.aquant.gpu.stages import STAGES, stages
from paperlab.aquant.networks import NETWORKS
from paperlab.lab.gpu_run import Box, Runner, stopped_at
from paperlab.lab.tables import read_csv

SCOPE = smoke()


def nothing_stored(name):
    return pd.DataFrame()


def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = tmp_path / "a folder"
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "abc", device)) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES}
    for name, table in tables.items():
        assert table.evidence.eq("measured-gpu" if device == "cuda" else "measured-cpu").all(), name
        assert table.device.notna().all()
    kernels = tables["kernels"]
    one = kernels[kernels.cell == kernels.cell.iloc[0]]
    assert one.network_overhead.to_numpy() == pytest.approx(overheads(one)[one.arm].to_numpy())
    assert set(tables["patches"].arm) == {"channel", "kernel_pos"}
    accuracy = tables["accuracy"].set_index("arm")
    assert list(accuracy.index) == list(SCOPE.methods)
    assert accuracy.float_accuracy.nunique() == 1
    assert not list((folder / "units").iterdir())
    assert [run["commit"] for run in json.loads((folder / "provenance.json").read_text())] == ["abc"]

    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    for function in ("layer_costs", "train", "quantize"):
        monkeypatch.setattr(measure, function, None)
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "def", device)) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}


def test_accuracy_waits_for_the_trained_network(tmp_path):
    bench = Bench(SCOPE, "cpu", tmp_path, time.monotonic() + 60, nothing_stored)
    assert measure.quantized_accuracy(bench, "N1", 2, 2, "rtn").empty


def test_the_time_box_ends_a_cell_without_a_failure(tmp_path, monkeypatch):
    def endless(*arguments):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(measure, "train", endless)
    begin_s = time.monotonic()
    assert gpu_evidence.gather(SCOPE, Box(tmp_path, 2 / 60, "abc", "cpu", ("training",))) == 0
    assert time.monotonic() - begin_s < 30
    assert not (tmp_path / "training.csv").exists()


def test_the_alarm_is_put_back():
    with pytest.raises(TimeoutError, match="the time box is over"), stopped_at(time.monotonic() + 0.05):
        time.sleep(5)
    with stopped_at(time.monotonic() + 0.05):
        pass
    time.sleep(0.1)


def test_float32_proper_is_put_back():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with exact_convolutions():
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
        assert torch.backends.cudnn.deterministic
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


def test_cells_have_names_of_their_own_and_known_parts(tmp_path):
    for scope in (FULL, SCOPE):
        plan = stages(Bench(scope, "cpu", tmp_path, 0.0, nothing_stored))
        for stage in plan:
            names = [cell.name for cell in stage.cells]
            assert len(set(names)) == len(names), stage.name
            assert len(Runner(tmp_path, 0.0, "now").missing(stage)) == len(names)
        assert sum(stage.share for stage in plan) == pytest.approx(1)
        assert set(scope.methods) <= set(METHODS)
    assert set(FULL.timed_networks) | set(FULL.trained_networks) <= set(NETWORKS)
    assert {FULL.bits[0], *FULL.bits} == {(4, 4), (2, 4), (3, 3), (2, 2)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_the_rehearsal_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_evidence.main(["--out", str(tmp_path)])
    assert "--smoke rehearses on a CPU" in capsys.readouterr().err
