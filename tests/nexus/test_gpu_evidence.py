"""The GPU run, rehearsed on a CPU: every stage, what its rows say of themselves, resumption, neighbors that fail."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from paperlab.lab.gpu_run import Box, Runner
from paperlab.lab.tables import read_csv
from paperlab.nexus import gpu_evidence
from paperlab.nexus.gpu import iterations, whole_systems
from paperlab.nexus.gpu.bench import Bench
from paperlab.nexus.gpu.kernel_times import kernel_class
from paperlab.nexus.gpu.scope import FULL, smoke
from paperlab.nexus.gpu.stages import STAGES, stages
from paperlab.serving import policy_names, workload
from paperlab.serving.cost import ModelCost

SCOPE = replace(smoke(), loads=(1.0,))


def nothing_stored(name):
    return pd.DataFrame()


@pytest.fixture
def bench():
    return Bench(SCOPE, "cpu", nothing_stored)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "abc", "cpu")) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES}
    for name, table in tables.items():
        assert table.evidence.eq("measured-cpu").all(), name
        assert table.device.notna().all()
    assert tables["partition"].partition.tolist() == ["unpartitioned"]
    assert set(tables["contention"].partition) == {"unpartitioned"}
    serving = tables["serving"]
    lanes = serving.system.isin(["nexus", "nexus-wo-sc", "pf-df-w-sc", "pf-df-wo-sc"])
    assert set(serving[lanes].partition) == {"unpartitioned"}
    assert set(serving[~lanes].partition) == {"none"}
    assert (serving.finished + serving.refused + serving.unfinished == serving.requests).all()
    capacity = tables["capacity"].set_index("scenario").requests_per_s
    assert serving.rate_per_s.to_numpy() == pytest.approx(capacity[serving.scenario].to_numpy())
    assert [run["commit"] for run in json.loads((folder / "provenance.json").read_text())] == ["abc"]

    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(whole_systems, "engine_of", None)
    monkeypatch.setattr(Bench, "rig", None)
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "def", "cpu")) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}


def test_serving_waits_for_the_capacity_of_its_own_device(bench):
    served = SCOPE.served[0]
    assert whole_systems.point(bench, served, 1.0, "nexus", 0).empty
    other = {"scenario": served.scenario.label, "device": "another", "requests_per_s": 1.0}
    elsewhere = Bench(SCOPE, "cpu", lambda name: pd.DataFrame([other]))
    assert whole_systems.point(elsewhere, served, 1.0, "nexus", 0).empty


def test_batches_have_the_sizes_asked_for_and_blocks_of_their_own(bench):
    rig = bench.rig()
    shape = bench.mixed_batch(rig).shape
    assert (shape.tokens, shape.decode_tokens) == (SCOPE.token_budget, SCOPE.motivation_batch)
    assert bench.prefill_batch(rig, 64).shape.prefill_context == 64
    decoding = bench.decode_batch(rig, SCOPE.motivation_batch, first=1)
    prefill = bench.prefill_batch(rig, max(SCOPE.stored))
    used = [{block for chunk in batch.chunks for block in chunk.sequence.blocks} for batch in (decoding, prefill)]
    assert not used[0] & used[1]
    assert rig.store.scratch not in used[0] | used[1]


def test_the_bound_is_weights_and_stored_tokens(bench):
    model, context, sequences = SCOPE.model, SCOPE.decode_context, 4
    row = iterations.decode(bench, sequences).iloc[0]
    cost = ModelCost(model, "fp32")
    assert row.moved_bytes == cost.weight_bytes + sequences * (context + 1) * cost.kv_token_bytes
    assert row.fraction == pytest.approx(row.bound_s / row.iteration_s)


def test_decode_beside_a_prefill_that_fails_is_no_measurement(bench, monkeypatch):
    rig = bench.rig()
    make = bench.prefill_batch(rig, 0)
    broken = make._replace(flat=replace(make.flat, ids_1N=make.flat.ids_1N + SCOPE.model.vocab))
    monkeypatch.setattr(Bench, "prefill_batch", lambda *arguments: broken)
    with pytest.raises(IndexError):
        iterations.contention(bench, 0)


def test_engines_share_weights_and_end_at_their_limit(bench):
    served = SCOPE.served[0]
    first, second = (whole_systems.engine_of(bench, served, name) for name in ("vllm-like", "nexus"))
    assert first._runner is second._runner
    assert (first.policy.name, second.policy.name) == ("vllm-like", "nexus")
    work = workload("ldc", requests=2, arrivals=[0.0, 60.0]).scaled(tokens=SCOPE.length_factor)
    log = second.serve(work, limit_s=1.0)
    assert log.end_s < 60
    assert list(log.requests) == [0]


def test_cells_have_names_of_their_own_and_known_systems(tmp_path):
    for scope in (FULL, SCOPE):
        for stage in stages(Bench(scope, "cpu", nothing_stored)):
            names = [cell.name for cell in stage.cells]
            assert len(set(names)) == len(names), stage.name
            assert len(Runner(tmp_path, 0.0, "now").missing(stage)) == len(names)
    assert {system for served in FULL.served for system in served.systems} <= set(policy_names())
    assert sum(stage.share for stage in stages(Bench(FULL, "cpu", nothing_stored))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_128x64_64x8", "linear"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm>", "linear"),
        ("_attend", "attention"),
        ("_join", "attention"),
        ("void at::native::vectorized_elementwise_kernel<4>", "other"),
    ],
)
def test_kernels_are_sorted_by_name(name, kind):
    assert kernel_class(name) == kind


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_the_rehearsal_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_evidence.main(["--out", str(tmp_path)])
    assert "--smoke rehearses on a CPU" in capsys.readouterr().err
