"""The process of one rank: a main thread for computation, and a thread for each direction between the tiers."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from paperlab.seesaw.engine.messages import Close, Forward, Load, Open, Report

if TYPE_CHECKING:
    from paperlab.seesaw.engine.pool import RankPlace


class Rank:
    """Answers orders until the pool goes away. The prefetcher is commanded by the driver, not by the main thread."""

    def __init__(self, place: RankPlace, orders: Mapping[str, Connection], reports: Connection) -> None:
        import torch
        import torch.distributed as dist

        from paperlab.seesaw.engine.communicators import TIMEOUT, Communicators
        from paperlab.seesaw.engine.session import Session

        torch.set_num_threads(1)  # a rank on a CPU is one core
        device = torch.device(place.device)
        if device.type == "cuda":
            device = torch.device("cuda", place.rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" and not place.via_host else "gloo"
        dist.init_process_group(
            backend, init_method=f"file://{place.store}", rank=place.rank, world_size=place.ranks, timeout=TIMEOUT
        )
        self.communicators = Communicators(place.rank, place.ranks, device, place.via_host)
        self.place, self._orders, self._reports, self._lock = place, orders, reports, threading.Lock()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.session: Any = None
        self._make_session = Session  # imported by now, which takes a while, so that opening does not

    def run(self) -> None:
        """Say that the rank is there, and serve."""
        threading.Thread(target=self._guarded, args=(self._collect,), name="inbox", daemon=True).start()
        for channel in ("in", "out"):
            target = partial(self._swap, channel)
            threading.Thread(target=self._guarded, args=(target,), name=channel, daemon=True).start()
        self.report(Report(self.place.rank, -1, "ready"))
        self._guarded(self._main)

    def report(self, report: Report) -> None:
        """Send to the driver, from any thread."""
        with self._lock:
            self._reports.send(report)

    def _guarded(self, handle: Callable[[], None]) -> None:
        import torch

        try:
            with torch.inference_mode():
                while True:
                    handle()
        except EOFError:
            os._exit(0)  # the pool has gone
        except Exception as error:
            traceback.print_exc()
            self.report(Report(self.place.rank, -1, "failed", error=f"{type(error).__name__}: {error}"))

    def _collect(self) -> None:
        """Take orders in as they come: a driver that waits to send would not hear the reports that this rank sends."""
        order = self._orders["main"].recv()
        if isinstance(order, Forward):
            self.session.expect(order)
        self._inbox.put(order)

    def _main(self) -> None:
        order = self._inbox.get()
        if isinstance(order, Forward):
            self.session.forward(order)
        elif isinstance(order, Load):
            self.session.load(order)
        elif isinstance(order, Open):
            self._open(order)
        else:
            assert isinstance(order, Close), f"unknown order {order!r}"
            self._close()

    def _swap(self, channel: str) -> None:
        order = self._orders[channel].recv()
        if channel == "in":
            self.session.swap_in(order)
        else:
            self.session.swap_out(order)

    def _open(self, order: Open) -> None:
        """Begin a session in two steps: what fits here, then what fits everywhere."""
        self.session = self._make_session(order.setup, self.communicators, self.report)
        blocks = order.setup.device_blocks
        if not blocks:
            self.report(Report(self.place.rank, -1, "fits", value=self.session.fitting_blocks()))
            blocks = self._inbox.get()
        self.session.reserve(blocks)
        self.report(Report(self.place.rank, -1, "opened"))

    def _close(self) -> None:
        self.session.close()
        self.session = None
        self.report(Report(self.place.rank, -1, "closed"))


def serve(place: RankPlace, orders: Mapping[str, Connection], reports: Connection) -> None:
    """Run a rank; the target of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the driver's, which then ends its ranks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # names of this machine may not resolve
    Rank(place, orders, reports).run()


def _end_with_parent() -> None:
    """End this process when the one that made the pool is gone, even while a collective holds the main thread."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
