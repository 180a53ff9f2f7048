"""The GPU run, rehearsed on a CPU: every stage, what its rows say of themselves, resumption, and its arithmetic."""

import ctypes
import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from paperlab.lab.gpu_run import Box, Runner
from paperlab.lab.tables import read_csv
from paperlab.seesaw import gpu_evidence
from paperlab.seesaw.engine.tiers import HostStore
from paperlab.seesaw.gpu import copies, replay
from paperlab.seesaw.gpu.bench import FULL, Bench, smoke
from paperlab.seesaw.gpu.stages import STAGES, stages
from paperlab.seesaw.layout import Layout
from paperlab.serving.engine.memory import block_bytes

SCOPE = smoke()


@pytest.fixture
def bench():
    return Bench(SCOPE, "cpu")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "abc", "cpu")) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES}
    for name, table in tables.items():
        assert table.evidence.eq("measured-cpu").all(), name
        assert table.device.notna().all()
    assert tables["shared_gpu"].equal.eq(tables["shared_gpu"].prompts).all()
    assert not any("_s" in column for column in tables["shared_gpu"])  # ranks that share a device are not timed
    assert set(tables["one_rank"].policy) == {"seesaw", "static-prefill-first", "static-chunked"}
    assert [run["commit"] for run in json.loads((folder / "provenance.json").read_text())] == ["abc"]
    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(Bench, "seconds", None)
    monkeypatch.setattr(replay, "ReshardingEngine", None)
    assert gpu_evidence.gather(SCOPE, Box(folder, 5, "def", "cpu")) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}


def test_prefill_leaves_what_it_computed_in_shared_memory(bench):
    table = copies.overlap(bench, 40)
    assert table.groupby("copies").size().to_dict() == dict.fromkeys(("none", "overlapped", "blocking"), SCOPE.repeats)
    assert table[table.copies == "none"].ratio.eq(1).all()
    moved = table[table.copies != "none"].kv_bytes.unique().tolist()
    shape = replace(SCOPE.overlap_model, layers=SCOPE.overlap_layers)
    assert moved == [SCOPE.batches * 3 * block_bytes(shape, copies.BLOCK, torch.float32)]
    assert (table.total_s >= table.prefill_s).all()


def test_the_kept_keys_are_those_of_attention(bench):
    """The pass that is timed writes real keys and values: those of another pass, layer by layer."""
    model = bench.shard_model(SCOPE.overlap_model, SCOPE.overlap_layers, Layout())
    blocks, shape = 3, model.shard.model
    buffer = torch.zeros(SCOPE.batches * blocks * block_bytes(shape, 16, torch.float32), dtype=torch.uint8)
    store = HostStore(shape, 16, torch.float32, buffer)
    copies._prefill(bench, model, store.part(model.shard), 40, "overlapped")
    seen = {}

    def attend(layer, q, k, v):
        seen[layer] = k, v
        return replay.causal_attention(layer, q, k, v)

    with torch.inference_mode():
        model.layers(model.hidden(torch.arange(40)[None]), torch.arange(40)[None], attend)
    for layer, (k, v) in seen.items():
        for kind, expected in enumerate((k, v)):
            for batch in range(SCOPE.batches):
                kept = store.blocks_BL2GSD[batch * blocks : (batch + 1) * blocks, layer, kind]
                kept = kept.transpose(0, 1).flatten(1, 2)[:, :40].transpose(0, 1)
                torch.testing.assert_close(kept, expected[0])


def test_runs_are_as_long_as_the_layout_allows(bench):
    model, tp, blocks = SCOPE.copy_model, 2, SCOPE.copy_blocks
    table = copies.kv_copies(bench, tp).set_index(["layout", "method"])
    assert table.runs["HND", "runs"] == 2 * blocks
    assert table.runs["NHD", "runs"] == 2 * blocks * copies.BLOCK
    assert table.kv_bytes.eq(blocks * block_bytes(model, 16, torch.float32) / model.layers / tp).all()
    whole = copies.kv_copies(bench, 1)
    assert whole.runs.eq(1).all()


@pytest.mark.parametrize("layout", ["HND", "NHD"])
def test_both_ways_to_copy_put_every_byte_in_place(bench, layout):
    slab = torch.randn(2, 2, 3, 4, 8)
    store = torch.zeros(2, 2, 6, 4, 8) if layout == "HND" else torch.zeros(2, 2, 3, 9, 8)
    target = store[:, :, :3] if layout == "HND" else store[:, :, :, 2:6]
    copies._copy_runs(copies._runs(slab, target))
    assert torch.equal(target, slab)
    store.zero_()
    copies._copy_packed(bench, slab, torch.empty_like(slab), target)
    assert torch.equal(target, slab)
    assert store.count_nonzero() == slab.count_nonzero()


class HostRuntime:
    """Stands in for `cuda.bindings.runtime`: does on the host what the driver documents of a copy with pitches."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDeviceToHost=2)
    error = 0

    def cudaMemcpy2DAsync(self, to, to_pitch, source, source_pitch, width, height, kind, stream):
        assert width <= min(to_pitch, source_pitch)
        for row in range(0 if self.error else height):
            ctypes.memmove(to + row * to_pitch, source + row * source_pitch, width)
        return (self.error,)


@pytest.mark.parametrize("layout", ["HND", "NHD", "whole"])
def test_one_copy_with_a_pitch_puts_every_byte_in_place(layout):
    slab = torch.randn(2, 2, 3, 4, 8)
    store = torch.zeros({"HND": (2, 2, 6, 4, 8), "NHD": (2, 2, 3, 9, 8), "whole": (2, 2, 3, 4, 8)}[layout])
    target = {"HND": store[:, :, :3], "NHD": store[:, :, :, 2:6], "whole": store}[layout]
    runtime = HostRuntime()
    copies.copy_pitched(slab, target, runtime)
    assert torch.equal(target, slab)
    assert store.count_nonzero() == slab.count_nonzero()
    runtime.error = 1
    with pytest.raises(RuntimeError, match=r"runs of \d+ bytes failed with 1"):
        copies.copy_pitched(slab, target, runtime)
    with pytest.raises(ValueError, match="no common pitch"):
        copies.copy_pitched(slab[:, :, :2], torch.zeros(2, 4, 6, 4, 8)[:, ::3, :2], runtime)


def test_reloads_on_a_cpu_are_of_pageable_memory_alone(bench):
    table = copies.reload(bench)
    assert table.source.unique().tolist() == ["pageable shared"]
    rows = table.set_index("part")
    assert rows.weight_bytes["rows"] == 4 * rows.weight_bytes["columns, TP 4"] == SCOPE.reload_bytes


def test_demands_of_a_replayed_layer_shrink_with_tp():
    model = FULL.replayed[0]
    found = [replay.layer_demands(Layout(tp=tp).shard(model, 0), "prefill", 512, 0, 2) for tp in FULL.tps]
    for (flops, moved), (fewer, less) in pairwise(found):
        assert flops == pytest.approx(2 * fewer)
        assert moved == pytest.approx(2 * less)
    weights = replay.layer_demands(Layout().shard(model, 0), "decode", 1, 0, 2)[1]
    assert weights == pytest.approx(2 * 855.6e6, rel=1e-3)  # a layer of Llama-2 70B in two bytes


def test_cells_have_names_of_their_own(tmp_path):
    for scope in (FULL, SCOPE):
        for stage in stages(Bench(scope, "cpu")):
            names = [cell.name for cell in stage.cells]
            assert len(set(names)) == len(names), stage.name
            assert len(Runner(tmp_path, 0.0, "now").missing(stage)) == len(names)
    assert sum(stage.share for stage in stages(Bench(FULL, "cpu"))) == pytest.approx(1)
    with pytest.raises(ValueError, match="overlap_layers is 9"):
        replace(SCOPE, overlap_layers=9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_the_rehearsal_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_evidence.main(["--out", str(tmp_path)])
    assert "--smoke rehearses on a CPU" in capsys.readouterr().err
