"""Nothing is downloaded at run time: a notebook runs in a network namespace that has loopback alone."""

import os
import shutil
import subprocess
import sys

import pytest

# Jupyter talks to its kernel over loopback, which a new namespace has but not up.
RUN_WITH_LOOPBACK = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
    s.settimeout(2)
    try:
        s.connect(("192.0.2.1", 9))
    except OSError:
        pass
    else:
        sys.exit("the namespace has a way out, so this proves nothing")
from paperlab.lab.cli import main
sys.exit(main(["run", "00"]))
"""


def can_unshare():
    command = ["unshare", "-rn", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs unshare with user and network namespaces")
def test_a_notebook_runs_without_a_network(tmp_path):
    environment = {**os.environ, "PAPERLAB_RESULTS": str(tmp_path)}
    command = ["unshare", "-rn", sys.executable, "-c", RUN_WITH_LOOPBACK]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "smoke" / "00_start_here" / "retained_bytes.csv").exists()
