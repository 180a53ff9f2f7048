"""The command line under torchrun, and what happens when a plan does not fit or a rank dies."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from paperlab.lab.paths import repo_root
from paperlab.mist import Plan, run
from paperlab.mist.runtime.build import Options, check_runnable
from paperlab.mist.runtime.engine import train
from paperlab.mist.runtime.pool import RankError, RankPool
from tests.mist.runtime.plans import offload, plan_of


def torchrun(ranks, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "lib"), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*launch, "-m", "paperlab.mist.run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.slow
def test_torchrun_runs_a_plan_file(tmp_path):
    folder = tmp_path / "with space"
    plan = plan_of(2, checkpointed=1, **offload(0.5))
    path, trace = plan.save(folder / "plan.json"), folder / "trace.json"
    done = torchrun(2, path, "--iterations", 2, "--trace", trace)
    assert done.returncode == 0, done.stderr
    assert "iteration 1: loss 4." in done.stdout
    assert "stage 1: device peak" in done.stdout
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"forward", "backward", "recompute", "adam", "exchange"} <= names


def test_one_rank_needs_no_torchrun(tmp_path, capsys):
    path = plan_of(1).save(tmp_path / "plan.json")
    assert run.main([str(path), "--iterations", "2"]) == 0
    assert "iteration 1: loss" in capsys.readouterr().out


def test_wrong_number_of_ranks_is_told(tmp_path, capsys):
    path = plan_of(2, dp=2).save(tmp_path / "plan.json")
    assert run.main([str(path)]) == 2
    assert "needs 4 ranks; 1 were started" in capsys.readouterr().err


def test_plan_file_is_checked(tmp_path, capsys):
    path = tmp_path / "plan.json"
    path.write_text("{")
    assert run.main([str(path)]) == 2
    assert "not a plan file" in capsys.readouterr().err
    assert run.main([str(tmp_path / "none.json")]) == 2


def test_heads_that_tp_does_not_divide_are_told():
    values = json.loads(json.dumps(plan_of(1, tp=2).to_dict()))
    values["model"]["shape"] |= {"heads": 1, "kv_heads": 1, "head_dim": 32}
    with pytest.raises(ValueError, match=r"tp is 2; .* has 1 heads"):
        Plan.from_dict(values)


def test_stages_of_different_shape_are_refused():
    plan = plan_of(2, dp=2, micro_batch=1)
    other = replace(plan.stages[1], dp=1, tp=2, micro_batch=2)
    with pytest.raises(ValueError, match="the runtime needs them equal"):
        check_runnable(replace(plan, stages=(plan.stages[0], other)), 4)


def test_plan_larger_than_the_world_is_refused():
    with pytest.raises(ValueError, match="needs 2 ranks; 1 are here"):
        train(plan_of(2))


def test_cuda_without_a_device_is_refused():
    with pytest.raises(ValueError, match="device is 'tpu'"):
        train(plan_of(1), options=Options(device="tpu"))


def die_after_first_iteration(plan, rank):
    """Train, but one rank ends itself in the middle of an iteration, as a killed process would."""
    from paperlab.mist.runtime import engine
    from paperlab.mist.runtime.groups import world

    original = engine.StageRunner.backward

    def backward(self, microbatch, grad, last):
        if world()[0] == rank and self.trace.iteration == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, microbatch, grad, last)

    engine.StageRunner.backward = backward
    return train(plan, 3)


def fail(rank):
    from paperlab.mist.runtime.groups import world

    if world()[0] == rank:
        raise ValueError("no data")


def processes_of(pool):
    return [psutil.Process(process.pid) for process in pool.processes]


def test_a_dead_rank_ends_the_run_within_thirty_seconds_without_orphans():
    with RankPool(2) as pool:
        pool.run(fail, 7)  # up and running
        processes = processes_of(pool)
        started = time.monotonic()
        with pytest.raises(RankError, match="rank"):
            pool.run(die_after_first_iteration, plan_of(1, dp=2, zero=3), 1)
        assert time.monotonic() - started < 30
        assert not any(process.is_running() for process in processes)
        with pytest.raises(RankError, match="closed"):
            pool.run(fail, 7)


@pytest.mark.slow
def test_an_error_on_one_rank_is_reported_and_ends_all():
    with RankPool(2) as pool:
        processes = processes_of(pool)
        with pytest.raises(RankError, match="rank 0 failed: ValueError: no data"):
            pool.run(fail, 0)
        assert not any(process.is_running() for process in processes)


ORPHAN = """
import os, sys, time
from paperlab.mist.runtime.pool import RankPool
if __name__ == "__main__":
    pool = RankPool(2)
    print(*[process.pid for process in pool.processes], flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_ranks_end_with_the_process_that_made_them(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "lib"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as main:
        ranks = [psutil.Process(int(pid)) for pid in main.stdout.readline().split()]
        time.sleep(5)
        main.kill()
        gone, alive = psutil.wait_procs(ranks, timeout=20)
    assert len(gone) == 2
    assert not alive
