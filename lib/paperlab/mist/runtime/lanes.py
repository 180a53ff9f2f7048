"""Lanes: independent queues of work beside the compute lane, so that copies and collectives overlap it (§2.3).

On the CPU a lane is a thread: copies, gloo collectives and fused optimizer kernels release the interpreter's lock.
On CUDA it is a stream. The CUDA half follows the usual rules (a lane starts after what the issuing stream has queued,
waiting is an event on the waiting stream); it was written without a GPU at hand and has not run on one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch

from paperlab.mist.runtime.trace import Trace

Call = tuple[str, Callable[[], Any], "tuple[Ticket, ...]", int, int]  # label, work, after, module, micro-batch
SIDE_LANES = ("swap-in", "swap-out", "unshard", "reduce", "optimizer")


class Ticket:
    """A promise of a piece of lane work."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._event: torch.cuda.Event | None = None

    def finish(self, error: BaseException | None = None, event: torch.cuda.Event | None = None) -> None:
        """Mark the work as done (on CUDA: as queued up to `event`), or as failed with `error`."""
        self._error, self._event = error, event
        self._done.set()

    def wait(self) -> None:
        """Hold this thread, on CUDA its current stream, until the work is done; raises what the work raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)


class Lane:
    """Runs work where it is submitted, at once: what remains when overlap is turned off."""

    def __init__(self, name: str, trace: Trace) -> None:
        self.name, self.trace = name, trace

    def submit(
        self,
        label: str,
        work: Callable[[], Any],
        after: Iterable[Ticket] = (),
        *,
        module: int = -1,
        microbatch: int = -1,
    ) -> Ticket:
        """Queue `work` behind this lane's earlier work and behind the tickets in `after`."""
        ticket = Ticket()
        self._issue(ticket, (label, work, tuple(after), module, microbatch))
        return ticket

    def _issue(self, ticket: Ticket, call: Call) -> None:
        self._run(*call)
        ticket.finish()

    def _run(
        self, label: str, work: Callable[[], Any], after: tuple[Ticket, ...], module: int, microbatch: int
    ) -> None:
        for earlier in after:
            earlier.wait()
        with self.trace.span(self.name, label, module, microbatch):
            work()

    def close(self) -> None:
        """Let the lane end after what it holds."""


class ThreadLane(Lane):
    """A lane on a thread of its own."""

    def __init__(self, name: str, trace: Trace) -> None:
        super().__init__(name, trace)
        self._queue: queue.SimpleQueue[tuple[Ticket, Call] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"mist {name}", daemon=True)
        self._thread.start()

    def _issue(self, ticket: Ticket, call: Call) -> None:
        self._queue.put((ticket, call))

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            ticket, call = item
            try:
                with torch.no_grad():
                    self._run(*call)
                ticket.finish()
            except BaseException as error:  # whoever waits for the ticket gets it
                ticket.finish(error)
            del item, call  # the work's closure holds buffers, which must not outlive it

    def close(self) -> None:
        """Let the thread end after what it holds."""
        self._queue.put(None)


class StreamLane(Lane):
    """A lane on a CUDA stream (not run on a GPU yet)."""

    def __init__(self, name: str, trace: Trace) -> None:
        super().__init__(name, trace)
        self.stream = torch.cuda.Stream(priority=-1)

    def _issue(self, ticket: Ticket, call: Call) -> None:
        """Issue the work after everything that the issuing stream holds by now."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), torch.no_grad():
            self._run(*call)
            event = torch.cuda.Event()
            event.record()
        ticket.finish(event=event)


def make_lanes(trace: Trace, device: torch.device, overlap: bool = True) -> dict[str, Lane]:
    """Return one lane per name in `SIDE_LANES`: threads or streams, or none of either without `overlap`."""
    kind = Lane if not overlap else StreamLane if device.type == "cuda" else ThreadLane
    return {name: kind(name, trace) for name in SIDE_LANES}
