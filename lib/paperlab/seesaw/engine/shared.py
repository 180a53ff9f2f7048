"""Memory that all ranks map: anonymous, so that nothing is left behind whatever process is killed when."""

from __future__ import annotations

import os
import sys
import tempfile

import torch
from torch import Tensor


class SharedBuffer:
    """`nbytes` of zeros that other processes map by `path` for as long as this object lives.

    On Linux it is a memory file without a name in any folder. Elsewhere it is a temporary file; `unlink` takes its
    name away once every process has mapped it.
    """

    def __init__(self, nbytes: int) -> None:
        if nbytes < 1:
            raise ValueError(f"SharedBuffer: nbytes is {nbytes}; it must be at least 1")
        self.nbytes, self._named = nbytes, sys.platform != "linux"
        if self._named:
            self._file, self.path = tempfile.mkstemp(prefix="seesaw-")
        else:
            self._file = os.memfd_create("seesaw")
            self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        os.ftruncate(self._file, nbytes)
        self.tensor = map_shared(self.path, nbytes)

    def unlink(self) -> None:
        """Take the name away, where there is one; nobody can map the memory afterwards."""
        if self._named:
            os.unlink(self.path)
            self._named = False

    def close(self) -> None:
        """Let go of the memory; it is free once all processes have."""
        if self._file >= 0:
            self.unlink()
            os.close(self._file)
            self._file, self.tensor = -1, torch.empty(0, dtype=torch.uint8)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()


def map_shared(path: str, nbytes: int) -> Tensor:
    """Return the buffer at `path` as bytes; writes are seen by every process that maps it."""
    return torch.from_file(path, shared=True, size=nbytes, dtype=torch.uint8)
