"""The GPU run, rehearsed on a CPU: every stage, what its rows say of themselves, resumption."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from paperlab.lab.gpu_run import Box
from paperlab.lab.tables import read_csv
from paperlab.rgbd_grasp import gpu_evidence
from paperlab.rgbd_grasp.gpu import bench as measure
from paperlab.rgbd_grasp.gpu import judging
from paperlab.rgbd_grasp.gpu.bench import Bench
from paperlab.rgbd_grasp.gpu.scope import FULL, smoke
from paperlab.rgbd_grasp.gpu.stages import STAGES, stages
from paperlab.rgbd_grasp.learning.training import Training
from paperlab.rgbd_grasp.scenes import generate

SCOPE = smoke()


def nothing_stored(name):
    return pd.DataFrame()


def test_cells_are_named_apart_and_nets_are_compared_seed_by_seed(tmp_path):
    plan = stages(Bench(FULL, "cpu", tmp_path, 0.0, nothing_stored))
    assert [stage.name for stage in plan] == list(STAGES)
    assert sum(stage.share for stage in plan) == pytest.approx(1.0)
    for stage in plan:
        names = [cell.name for cell in stage.cells]
        assert len(set(names)) == len(names)
    training = [cell.name for cell in next(stage for stage in plan if stage.name == "training").cells]
    assert training[:4] == ["rgb, seed 0", "rgb_normals, seed 0", "depth, seed 0", "normals, seed 0"]
    assert len(training) == 12
    frames = [cell.name for cell in plan[0].cells]
    assert frames[:2] == ["train, 25 scenes", "train, 50 scenes"]
    assert frames[3:6] == ["train, 100 scenes", "seen, 25 scenes", "seen, 30 scenes"]


def test_nothing_is_judged_that_is_not_trained(tmp_path):
    bench = Bench(SCOPE, "cpu", tmp_path, 0.0, nothing_stored)
    assert measure.heatmaps(bench, "rgb", 0).empty
    assert measure.training(bench, "rgb", 0).empty
    assert measure.prior(bench).empty
    assert judging.net_grasps(bench, "rgb", 0).empty
    assert judging.other_grasps(bench, "oracle").empty


def test_speed_rows_tell_what_they_are(tmp_path):
    rows = measure.speed(Bench(SCOPE, "cpu", tmp_path, 0.0, nothing_stored), "rgb_normals", 2)
    assert len(rows) == 4
    assert (rows.evidence == "measured-cpu").all()
    inference, training = (
        rows[rows.arm == arm].TFLOPs_per_s * rows[rows.arm == arm].time_s for arm in ("inference", "training")
    )
    assert training.to_numpy() / inference.to_numpy() == pytest.approx(
        3.0, abs=0.15
    )  # backward is twice forward, save for the image


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    assert gpu_evidence.gather(SCOPE, Box(folder, 15, "abc", "cpu")) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES}
    for name, table in tables.items():
        assert table.evidence.eq("measured-cpu").all(), name
        assert table.device.notna().all()
    assert set(tables["heatmaps"].arm) == {"trained", "untrained", "class prior x true mask"}
    grasps = tables["grasps"]
    assert set(grasps.method) == {"AVN", "oracle", "random orientation"}
    assert set(grasps["mask"]) == {"depth_plane"}
    assert set(grasps.collision_filter) == {True, False}
    assert grasps.ap.between(0, 100).all()
    assert [run["commit"] for run in json.loads((folder / "provenance.json").read_text())] == ["abc"]

    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(Training, "step", None)
    monkeypatch.setattr(generate, "make_scene", None)
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "def", "cpu")) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}
