"""Each test starts a kernel, which costs seconds: so each proves several things."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from paperlab.lab import execute as executor
from paperlab.lab import tables
from paperlab.lab.execute import NotebookError, execute
from paperlab.lab.notebooks import check_parameters
from paperlab.lab.profiles import get_profile
from paperlab.lab.report import write_report
from paperlab.lab.trace import trace
from paperlab.lab.verify import rerun, verify

from .conftest import write_notebook

BROKEN = """\
# %% tags=["parameters"]
profile: str = "smoke"  # how much to run
seed: int = 0  # seeds everything
# %%
{body}
"""


def test_run_publishes_results_that_verify_trace_and_reproduce(lab_root):
    folder = execute("41_demo", "smoke", {"scale": 3})
    assert folder == lab_root / "results" / "smoke" / "41_demo"
    assert not (folder.parent / ".staging").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parameters"] == {"profile": "smoke", "seed": 0, "scale": 3}
    assert manifest["wall_s"] > 0
    assert manifest["peak_rss_GiB"] > 0.1
    assert "notebooks/41_demo.ipynb" in manifest["inputs"]
    assert {"table_1.csv", "figure_1.svg", "index.json"} <= manifest["outputs"].keys()
    assert tables.read_csv((folder / "table_1.csv").read_text())["y"].tolist() == [0.3, 0.6, 0.9]

    missing = ["claim X-04: no notebook recorded a measured-cpu finding"]
    assert verify(folder.parent) == missing
    assert rerun("41_demo", "smoke", folder) == []
    account = trace(folder / "figure_1.png")
    assert "notebooks/41_demo.ipynb" in account
    assert "measured-cpu" in account
    assert write_report("smoke") == [folder.parent / "index.html"]
    assert "figure_1.svg" in (folder.parent / "index.html").read_text()

    (folder / "table_1.csv").write_text((folder / "table_1.csv").read_text().replace("0.6", "0.7"))
    notebook = lab_root / "notebooks" / "41_demo.ipynb"
    notebook.write_text(notebook.read_text() + " ")
    assert "CHANGED" in trace(folder / "table_1.csv")
    assert verify(folder.parent) == [
        "41_demo/table_1.csv: changed since the run",
        "41_demo: stale, notebooks/41_demo.ipynb is not what the run used",
        *missing,
    ]


def test_failing_cell_is_named_and_former_results_stay(lab_root):
    former = lab_root / "results" / "smoke" / "42_broken"
    former.mkdir(parents=True)
    (former / "table_1.csv").write_text("kept")
    write_notebook(lab_root, "42_broken", BROKEN.format(body="1 / 0"))
    with pytest.raises(NotebookError, match=r"42_broken: code cell \d raised ZeroDivisionError: division by zero"):
        execute("42_broken", "smoke")
    assert (former / "table_1.csv").read_text() == "kept"


def test_dead_kernel_is_told(lab_root):
    write_notebook(lab_root, "42_broken", BROKEN.format(body="import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(NotebookError, match="the kernel died"):
        execute("42_broken", "smoke")


@pytest.mark.parametrize(
    ("budget", "body", "message"),
    [
        ({"notebook_minutes": 0.05}, "import time; time.sleep(60)", "passed its time budget of 0.05 min"),
        ({"memory_GiB": 0.5}, "block = bytearray(2**30); import time; time.sleep(60)", "passed its memory budget"),
    ],
)
def test_passed_budget_ends_the_run_and_its_kernel(lab_root, monkeypatch, budget, body, message):
    small = replace(get_profile("smoke"), **budget)
    monkeypatch.setattr(executor, "get_profile", lambda name: small)
    write_notebook(lab_root, "42_broken", BROKEN.format(body=body))
    before = set(psutil.Process().children(recursive=True))  # another test's helpers of multiprocessing
    with pytest.raises(NotebookError, match=message):
        execute("42_broken", "smoke")
    assert set(psutil.Process().children(recursive=True)) <= before


def test_killed_executor_leaves_no_kernel_and_no_result(lab_root):
    mark = lab_root / "kernel.pid"
    body = f"import os, time, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(300)"
    write_notebook(lab_root, "42_broken", BROKEN.format(body=body))
    command = [sys.executable, "-m", "paperlab.lab.cli", "run", "42"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
    assert _wait_for(lambda: mark.exists() and mark.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    kernel = int(mark.read_text())
    assert _wait_for(lambda: not psutil.pid_exists(kernel))
    assert not (lab_root / "results" / "smoke" / "42_broken").exists()


def _wait_for(condition, limit_s=60):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sed": 1}, "unknown parameter 'sed'; it has profile, seed, scale"),
        ({"seed": "1"}, "parameter seed is '1', a str; give a int"),
        ({"seed": True}, "parameter seed is True, a bool; give a int"),
        ({"scale": "big"}, "give a float"),
    ],
)
def test_bad_parameters_are_errors(lab_root, given, message):
    with pytest.raises(ValueError, match=message):
        check_parameters("41_demo", given)


def test_integers_pass_for_floats(lab_root):
    assert check_parameters("41_demo", {"scale": 3}) == {"profile": "smoke", "seed": 0, "scale": 3}
