import subprocess

import pytest

from paperlab.lab import profiles
from paperlab.lab.cli import main
from paperlab.lab.paths import repo_root
from paperlab.lab.profiles import get_profile, profile_names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "77"], "notebook: nothing starts with '77'; there are 41_demo"),
        (["run", "41", "-p", "sed=1"], "unknown parameter 'sed'"),
        (["run", "41", "-p", "seed"], "write NAME=VALUE"),
        (["report", "--profile", "cpu"], "no results of profile cpu; make them: ./run_all.sh --profile cpu"),
        (["verify", "--profile", "gpu"], "no results of profile gpu"),
        (["trace", "nowhere.csv"], "no such file: nowhere.csv"),
    ],
)
def test_bad_requests_are_one_line(lab_root, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_list_shows_notebooks_parameters_and_claims(lab_root, capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "41_demo" in out
    assert "scale=2.0" in out
    assert "X-01" in out


def test_gpu_profile_without_a_device_is_told(lab_root, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["run", "41", "--profile", "gpu"]) == 1
    assert "needs a CUDA device and there is none; use --profile cpu" in capsys.readouterr().err


def test_profiles_reject_unknown_settings_and_bad_budgets():
    assert profile_names() == ["smoke", "cpu", "gpu"]
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Config:
        steps: int = 1

    smoke = replace(get_profile("smoke"), settings={"tempo": {"steps": 3}, "mist": {"stpes": 3}})
    assert smoke.config("tempo", Config) == Config(3)
    assert smoke.config("nexus", Config) == Config(1)
    with pytest.raises(KeyError, match=r"\[smoke.mist\]: unknown stpes; known: steps"):
        smoke.config("mist", Config)
    with pytest.raises(ValueError, match="budgets and threads must be positive"):
        replace(smoke, memory_GiB=0)
    with pytest.raises(ValueError, match="'tpu' is not 'cpu' or 'cuda'"):
        profiles._profile("x", {"device": "tpu", "description": "", "total_minutes": 1, "notebook_minutes": 1,
                                "memory_GiB": 1, "threads": 1})  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "huge"], "unknown profile huge; use smoke, cpu or gpu"),
        (["--jobs", "many"], "--jobs many: give a positive number"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_run_all_refuses_bad_options(tmp_path, arguments, message):
    done = subprocess.run([str(repo_root() / "run_all.sh"), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_run_all_help_names_every_option(tmp_path):
    done = subprocess.run([str(repo_root() / "run_all.sh"), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    for option in ("--profile smoke|cpu|gpu", "--only", "--jobs", "--test", "--lab", "-- "):
        assert option in done.stdout
