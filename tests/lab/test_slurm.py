"""The same graph on SLURM: jobs on a real one-node cluster, with each notebook's declared resources."""

from __future__ import annotations

import os
import subprocess

import pytest

from paperlab.lab.paths import repo_root
from paperlab.lab.profiles import get_profile
from tests.lab.slurm_node import missing, one_node_cluster

pytestmark = pytest.mark.slow


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_graph_runs_on_slurm_with_the_declared_resources(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="extra 'slurm' is not installed")
    (tmp_path / "cluster").mkdir()
    results = tmp_path / "results"
    with one_node_cluster(tmp_path / "cluster"):
        environment = {**os.environ, "PAPERLAB_RESULTS": str(results)}
        command = ["./run_all.sh", "--profile", "smoke", "--only", "00", "--jobs", "1", "--"]
        command += ["--executor", "slurm", "--slurm-no-account", "--slurm-status-command", "squeue"]
        command += ["--slurm-init-seconds-before-status-checks", "5"]
        done = subprocess.run(command, env=environment, cwd=repo_root(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        jobs = subprocess.run(["scontrol", "show", "jobs", "-o"], capture_output=True, text=True)
    profile = get_profile("smoke")
    (job,) = (line for line in jobs.stdout.splitlines() if "JobState=COMPLETED" in line)
    assert f"mem={profile.memory_GiB:g}G" in job
    assert f"TimeLimit=00:{profile.notebook_minutes + 1:02.0f}:00" in job
    assert (results / "smoke" / "00_start_here" / "executed.ipynb").exists()
    assert (results / "smoke" / "index.html").exists()
