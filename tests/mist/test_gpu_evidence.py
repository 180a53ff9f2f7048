"""The GPU run, rehearsed on whatever is here: every stage, resumption, and tables that the cost model reads."""

import json

import pandas as pd
import pytest
import torch

from paperlab.lab.gpu_run import Box
from paperlab.lab.tables import read_csv
from paperlab.mist import gpu_evidence
from paperlab.mist.gpu import operators, plans
from paperlab.mist.gpu.scope import FULL, smoke
from paperlab.mist.gpu_evidence import STAGES, gather, main, stages
from paperlab.mist.symbolic.trace import symbolic_trace


def test_every_stage_runs_and_a_second_run_has_nothing_to_do(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "a folder"
    assert gather(smoke(), Box(folder, 5, "abc", "cpu")) == 0
    tables = {name: read_csv((folder / f"{name}.csv").read_text()) for name in STAGES}
    assert all(set(table.evidence) == {"measured-cpu"} for table in tables.values())
    assert [run["commit"] for run in json.loads((folder / "provenance.json").read_text())] == ["abc"]
    model, spec = operators.model_of(tables["operators"]), smoke().models[0]
    measured = set(model.rows)
    assert set(operators.keys(spec, 2, 1)) <= measured
    assert model.layer_s(symbolic_trace(spec)["block"], 2, 1)[0] > 0

    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(plans, "capped_rows", lambda *_: 1 / 0)
    assert gather(smoke(), Box(folder, 5, "def", "cpu")) == 0
    assert before == {path: path.read_bytes() for path in folder.glob("*.csv")}
    assert "capped: 2 of 2 cells" in capsys.readouterr().out


def test_the_edge_of_memory_is_found_by_bisection():
    table = plans.capped_rows(smoke().capped[0], "cpu").sort_values("checkpointed")
    fits = table.fits.tolist()
    assert fits == sorted(fits)  # from some number of checkpointed layers on everything fits
    assert set(fits) == {True, False}
    assert (table.fits == table.predicted_fits).all()
    assert (table.predicted_MiB / table.ledger_MiB - 1).abs().max() <= 0.03


def test_layers_wait_for_their_operators():
    (stage,) = [stage for stage in stages(smoke(), "cpu", lambda _: pd.DataFrame()) if stage.name == "layers"]
    assert all(cell.measure().empty for cell in stage.cells)


def test_cells_have_names_of_their_own():
    for scope in (FULL, smoke()):
        for stage in stages(scope, "cuda", lambda _: pd.DataFrame()):
            names = [cell.name for cell in stage.cells]
            assert len(set(names)) == len(names), stage.name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_the_rehearsal_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "no CUDA device was found; --smoke rehearses on a CPU" in capsys.readouterr().err
    assert gpu_evidence.STAGES[0] == "capped"


@pytest.mark.gpu
def test_plans_on_the_device_train_and_count_as_predicted(device):
    item = smoke().capped[1]
    table = plans.capped_rows(item, device.type)
    assert (table.predicted_MiB / table.ledger_MiB - 1).abs().max() <= 0.03
