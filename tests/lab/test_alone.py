"""Locks: one holder at a time, gone with the process that held it, not handed on to what that starts."""

import subprocess
import sys
import time
from pathlib import Path

from paperlab.lab.alone import alone

HOLD = "import subprocess, sys; print('held', flush=True); subprocess.Popen(['sleep', '20'], stdout=-3).wait()"


def command(folder: Path, code: str) -> list[str]:
    return [sys.executable, "-m", "paperlab.lab.alone", str(folder), sys.executable, "-c", code]


def test_a_second_is_told_and_a_killed_first_leaves_no_lock(tmp_path):
    folder = tmp_path / "a folder"
    first = subprocess.Popen(command(folder, HOLD), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    second = subprocess.run(command(folder, "print('ran')"), capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr == f"another run is at work on {folder}; wait for its end\n"
    other = subprocess.run(command(tmp_path, "print('ran')"), capture_output=True, text=True)
    assert other.stdout == "ran\n"

    first.kill()  # its child sleeps on
    first.wait()
    first.stdout.close()
    third = subprocess.run(command(folder, "raise SystemExit(3)"))
    assert third.returncode == 3


def test_alone_waits(tmp_path):
    with alone(tmp_path):
        code = (
            f"from pathlib import Path; from paperlab.lab.alone import alone\nwith alone(Path({str(tmp_path)!r})): pass"
        )
        waiting = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.7)
        assert waiting.poll() is None
    assert waiting.wait(timeout=60) == 0
