"""A real one-node SLURM cluster on this machine, from the packages slurmctld, slurmd, slurm-client and munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SETTINGS = Path("/etc/slurm/slurm.conf")  # jobs lose SLURM_CONF on the way: every command must find it where it looks
_CONFIGURATION = """\
ClusterName=paperlab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_MiB} State=UNKNOWN
PartitionName=work Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why no cluster can be started here, or nothing."""
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (packages slurmctld, slurmd, slurm-client, munge)"
    if SETTINGS.exists():
        return f"{SETTINGS} exists: this machine belongs to a cluster, which a test must not touch"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root"


@contextmanager
def one_node_cluster(folder: Path, cores: int = 2, memory_MiB: int = 14_000) -> Iterator[None]:
    """Start the daemons, with their files in `folder` but for the settings, which go to `SETTINGS` for as long."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller_port, node_port = _free_ports(2)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{ending}" for option, ending in files.items()]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    )
    settings = _CONFIGURATION.format(
        host=host,
        folder=folder,
        cores=cores,
        memory_MiB=memory_MiB,
        controller_port=controller_port,
        node_port=node_port,
    )
    with ExitStack() as stack:
        SETTINGS.write_text(settings)
        stack.callback(SETTINGS.unlink)
        for command in commands:
            stack.enter_context(_daemon(command, folder))
        _wait_until_idle()
        yield


@contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            time.sleep(1)  # each looks for the one before when it starts
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_idle(seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    raise TimeoutError(f"the node is not idle after {seconds:.0f} s: {found.stdout}{found.stderr}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
