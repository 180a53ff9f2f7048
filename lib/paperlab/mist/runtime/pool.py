"""Ranks on this machine: spawned once, reused for any number of plans, gone when the pool closes or anything fails."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

_FAREWELL_S = 5.0


class RankError(RuntimeError):
    """A rank raised or died; the message says which one and why."""


class RankPool:
    """A fixed number of processes joined in one gloo group, each with one compute thread.

    >>> with RankPool(2) as pool:
    ...     results = pool.run(train, plan, 3)      # in rank order; `train` must be importable

    When a rank raises, dies or is silent for `timeout_s`, all are ended and
    `RankError` is raised; the pool is closed then.
    """

    def __init__(self, size: int, timeout_s: float = 300.0) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; a pool has at least one rank")
        self.size, self.timeout_s = size, timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="mist-ranks-")
        store = str(Path(self._folder.name) / "store")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, store, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Call `function(*args, **kwargs)` on every rank and return the results in rank order."""
        if not self.processes:
            raise RankError("the pool is closed")
        try:
            for pipe in self._pipes:
                pipe.send((function, args, kwargs))
            return self._collect()
        except BaseException:
            self.close()
            raise

    def _collect(self) -> list[Any]:
        """Wait for all answers, watching for deaths; the first failure ends the wait."""
        results: dict[int, Any] = {}
        deadline_s = time.monotonic() + self.timeout_s
        while len(results) < self.size:
            missing = [rank for rank in range(self.size) if rank not in results]
            watched: list[Any] = [self._pipes[rank] for rank in missing]
            watched += [process.sentinel for process in self.processes]
            if not wait(watched, max(0.0, deadline_s - time.monotonic())):
                raise RankError(f"ranks {missing} gave no answer within {self.timeout_s:g} s")
            for rank in missing:
                if self._pipes[rank].poll():
                    results[rank] = self._receive(rank)
            self._check_alive()
        return [results[rank] for rank in range(self.size)]

    def _receive(self, rank: int) -> Any:
        try:
            error, value = self._pipes[rank].recv()
        except EOFError:
            raise RankError(f"rank {rank} died") from None
        if error is not None:
            raise RankError(f"rank {rank} failed: {error}")
        return value

    def _check_alive(self) -> None:
        for rank, process in enumerate(self.processes):
            if process.exitcode is not None:
                raise RankError(f"rank {rank} died with exit code {process.exitcode}")

    def close(self) -> None:
        """End all ranks; safe to call twice."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(_FAREWELL_S)
            if process.exitcode is None:
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self.processes, self._pipes = [], []
        self._folder.cleanup()

    def __enter__(self) -> RankPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    """Join the group and answer calls until the pool goes away."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # names of this machine may not resolve
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while True:
        function, args, kwargs = pipe.recv()
        try:
            pipe.send((None, function(*args, **kwargs)))
        except Exception as error:
            traceback.print_exc()
            pipe.send((f"{type(error).__name__}: {error}", None))


def _end_with_parent() -> None:
    """End this process when the one that made the pool is gone, even while a collective holds the main thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
