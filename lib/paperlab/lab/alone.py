"""One at a time: locks that end with the process that holds them, however that ends, so that a kill leaves none behind.

Snakemake's own lock stays after a kill and has to be removed by hand; `run_all.sh` takes one of these instead:

    python -m paperlab.lab.alone FOLDER COMMAND ...
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _acquire(folder: Path, wait: bool) -> int:
    """Return an open file that holds the lock of `folder`, which need not exist; the lock lies among temporary files.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"paperlab-{os.getuid()}-{name}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, and wait for it where another process does."""
    descriptor = _acquire(folder, wait=True)
    try:
        yield
    finally:
        os.close(descriptor)


def main() -> None:
    """Become the command `argv[2:]` with the lock of the folder `argv[1]`, or say that another process has it."""
    folder, *command = sys.argv[1:]
    try:
        descriptor = _acquire(Path(folder), wait=False)
    except BlockingIOError:
        sys.exit(f"another run is at work on {folder}; wait for its end")
    os.set_inheritable(descriptor, True)  # the command keeps it; what the command starts does not, as Python closes it
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
