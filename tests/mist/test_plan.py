"""Plan files and specs: what comes back is what went in, and everything else is told in one line."""

import json
import re
from dataclasses import replace

import pytest

from paperlab.mist import ClusterSize, Plan, StagePlan, gpt, llama
from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import predict
from tests.mist.small import GOLDEN, tiny

TUNED = Plan(
    GOLDEN, ClusterSize("l4", 1, 2), 32, 16, (StagePlan(12, 5, 2, 1, 1), StagePlan(12, 0, 2, 1, 1))
)  # fmt: skip


@pytest.mark.parametrize("predicted", [False, True])
def test_a_plan_comes_back_from_its_file(tmp_path, predicted):
    plan = predict(TUNED, cluster("l4", 1, 2)) if predicted else TUNED
    again = Plan.load(plan.save(tmp_path / "a folder" / "plan.json"))
    assert again == plan
    assert predict(again, cluster("l4", 1, 2)) == predict(plan, cluster("l4", 1, 2))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.pop("stages"), "unknown or missing keys stages"),
        (lambda d: d.update(stages=7), "stages is 7"),
        (lambda d: d.update(extra=1), "unknown or missing keys extra"),
        (lambda d: d.update(format=2), "format is 2"),
        (lambda d: d["stages"][0].update(dp="2"), r"stages\[0\]: dp is '2'"),
        (lambda d: d["stages"][0].update(checkpointed=13), "checkpointed is 13"),
        (lambda d: d["stages"][1].update(grad_offload=1.5), "grad_offload is 1.5"),
        (lambda d: d["stages"][1].update(zero=4), "zero is 4"),
        (lambda d: d["stages"].pop(), "stages hold 12 layers"),
        (lambda d: d["cluster"].update(gpus_per_node=4), "stages use 2 devices together; the cluster has 4"),
        (lambda d: d.update(global_batch=33), "micro_batch x dp x accumulation is 32; global_batch is 33"),
        (lambda d: d["model"].update(attention="linear"), "attention is 'linear'"),
        (lambda d: d["model"]["shape"].update(heads=15), "head"),
    ],
)
def test_a_corrupt_plan_file_is_told(tmp_path, change, told):
    values = TUNED.to_dict()
    values = json.loads(json.dumps(values))
    change(values)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"plan.json: .*{told}") as error:
        Plan.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_json_is_told(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("stages: 2")
    with pytest.raises(ValueError, match="not a plan file"):
        Plan.load(path)


def test_a_corrupt_prediction_is_told(tmp_path):
    values = json.loads(json.dumps(predict(TUNED, cluster("l4", 1, 2)).to_dict()))
    values["prediction"]["stable_s"] = ["fast", "faster"]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="times and peaks must be numbers"):
        Plan.load(path)


def test_a_model_that_tp_does_not_divide_is_told():
    model = tiny(heads=4)
    with pytest.raises(ValueError, match="tp is 8; gpt-h64-l4 has 4 heads, which 8 does not divide"):
        Plan(model, ClusterSize("l4", 1, 8), 8, 8, (StagePlan(4, 0, 1, 1, 8),))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: gpt("3b", seq_len=128), "size is '3b'"),
        (lambda: gpt(hidden=64, seq_len=128), "give heads, layers"),
        (lambda: gpt("7b", seq_len=0), "seq_len is 0"),
        (lambda: gpt("7b", seq_len=128, dtype="fp12"), "fp12"),
        (lambda: llama("7b", seq_len=128, width=3), "unknown sizes width"),
        (lambda: replace(tiny(), shape=replace(tiny().shape, qkv_bias=True)), "no biases"),
    ],
)
def test_a_bad_model_is_told(make, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        make()


def test_table_and_explanation_name_every_stage():
    plan = predict(TUNED, cluster("l4", 1, 2))
    table = plan.table()
    assert list(table.layers) == [12, 12]
    assert table.backward_peak_MiB[0] == pytest.approx(19286, abs=5)
    text = plan.explain()
    assert text.count("stage 0:") == 1
    assert text.count("stage 1:") == 1
    assert "does not fit" not in text
    small = cluster("l4", 1, 2).with_capacity(16 * 2**30)
    assert re.search(r"does not fit: stage 0: backward of the recomputed block needs .* MiB more", plan.explain(small))
