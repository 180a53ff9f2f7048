"""Ranks on this machine: spawned once, with their communicators, and kept for any number of engines."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import deque
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from paperlab.seesaw.engine.messages import CHANNELS, Report

FAREWELL_S = 5.0
SILENCE_S = 600.0  # of a rank that was given an order and neither answers nor dies


class RankError(RuntimeError):
    """A rank raised, died or fell silent; the message says which one and why."""


class RankPlace(NamedTuple):
    """Where a rank runs: its number of how many, the device, and whether it shares a GPU with others."""

    rank: int
    ranks: int
    device: str
    via_host: bool
    store: str  # file through which the ranks find each other


class RankPool:
    """`ranks` processes in one torch.distributed group: gloo on a CPU, NCCL with a GPU each.

    With `share_gpu` several ranks may run on one GPU, their traffic through the host: for checks of what comes out,
    never for times. When a rank raises, dies or falls silent, all are ended and `RankError` is raised.
    """

    def __init__(self, ranks: int, device: str = "cpu", share_gpu: bool = False) -> None:
        """Start the processes and wait until all are connected.

        Raises:
            ValueError: fewer than one rank, an unknown device, or more ranks than GPUs without `share_gpu`.
            RankError: a rank did not come up.
        """
        if ranks < 1:
            raise ValueError(f"RankPool: ranks is {ranks}; give at least 1")
        self.ranks, self.device, self.shared = ranks, device, _shares(ranks, device, share_gpu)
        self.engine: object | None = None  # which of them it serves at the moment
        self._folder = tempfile.TemporaryDirectory(prefix="seesaw-ranks-")
        self._orders: dict[tuple[int, str], Connection] = {}
        self._reports: list[Connection] = []
        self._heard: deque[Report] = deque()
        self.processes: list[Any] = []
        try:
            for rank in range(ranks):
                self._start(rank)
            self.await_all("ready")
        except BaseException:
            self.close()
            raise

    def _start(self, rank: int) -> None:
        from paperlab.seesaw.engine.worker import serve

        context = start_context(self.device)
        place = RankPlace(rank, self.ranks, self.device, self.shared, str(Path(self._folder.name) / "store"))
        theirs: dict[str, Connection] = {}
        for channel in CHANNELS:
            theirs[channel], self._orders[rank, channel] = context.Pipe(duplex=False)
        mine, reports = context.Pipe(duplex=False)
        process = context.Process(target=serve, args=(place, theirs, reports), name=f"seesaw rank {rank}", daemon=True)
        process.start()
        self.processes.append(process)
        self._reports.append(mine)
        for end in (*theirs.values(), reports):
            end.close()

    @property
    def open(self) -> bool:
        """Whether the ranks are there."""
        return bool(self.processes)

    def send(self, rank: int, order: object, channel: str = "main") -> None:
        """Give a rank an order; RankError where it is gone."""
        if not self.processes:
            raise RankError("the ranks have ended; make a new engine")
        try:
            self._orders[rank, channel].send(order)
        except OSError:
            self._fail(self._death())

    def broadcast(self, order: object) -> None:
        """Give all ranks an order."""
        for rank in range(self.ranks):
            self.send(rank, order)

    def receive(self) -> Report:
        """Return the next report of any rank; RankError where one has failed or died, and all ranks end then."""
        deadline_s = time.monotonic() + SILENCE_S
        while not self._heard:
            if not self.processes:
                raise RankError("the ranks have ended; make a new engine")
            watched = [*self._reports, *(process.sentinel for process in self.processes)]
            ready = wait(watched, max(0.0, deadline_s - time.monotonic()))
            if not ready:
                self._fail(f"no rank said anything for {SILENCE_S:g} s")
            self._hear([item for item in ready if isinstance(item, Connection)])
            if any(process.exitcode is not None for process in self.processes):
                self._fail(self._death())
        return self._heard.popleft()

    def await_all(self, part: str) -> list[Any]:
        """Wait for one report of this part from each rank; returns their values in rank order."""
        values: dict[int, Any] = {}
        while len(values) < self.ranks:
            report = self.receive()
            assert report.part == part, f"rank {report.rank} reports {report.part}, not {part}"
            values[report.rank] = report.value
        return [values[rank] for rank in range(self.ranks)]

    def close(self) -> None:
        """End all ranks; safe to call twice."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(FAREWELL_S)
            if process.exitcode is None:
                process.kill()
                process.join()
        for pipe in (*self._orders.values(), *self._reports):
            pipe.close()
        self.processes, self._orders, self._reports = [], {}, []
        self._folder.cleanup()

    def __enter__(self) -> RankPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self, pipes: list[Connection]) -> None:
        for pipe in pipes:
            try:
                report = pipe.recv()
            except (EOFError, OSError):
                self._fail(self._death())
            if report.error:
                self._fail(f"rank {report.rank}: {report.error}")
            self._heard.append(report)

    def _death(self) -> str:
        """Say which rank died; its pipe may close a moment before its exit code is known."""
        wait([process.sentinel for process in self.processes], 1.0)
        dead = [(rank, process.exitcode) for rank, process in enumerate(self.processes) if process.exitcode is not None]
        return "; ".join(f"rank {rank} died with exit code {code}" for rank, code in dead) or "a rank went away"

    def _fail(self, why: str) -> None:
        self.close()
        raise RankError(why)


def start_context(device: str) -> Any:
    """Return how ranks start: from a server process that has imported torch, which saves seconds for each, or afresh.

    Nothing is inherited from the caller either way. CUDA wants processes of its own.
    """
    if device == "cuda" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["paperlab.seesaw.engine.session"])
    return context


def _shares(ranks: int, device: str, share_gpu: bool) -> bool:
    """Return whether ranks share a GPU; ValueError where the device cannot serve so many."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"RankPool: device is {device!r}; use cpu or cuda")
    if device == "cpu":
        return False
    import torch

    gpus = torch.cuda.device_count()
    if gpus < 1 or (ranks > gpus and not share_gpu):
        raise ValueError(f"RankPool: {ranks} ranks need a GPU each and {gpus} are here; share_gpu=True is for checks")
    return ranks > gpus
