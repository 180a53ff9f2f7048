"""What goes through the pipes between the driver and the ranks: orders one way, reports the other. No tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

CHANNELS = ("main", "in", "out")  # a rank's main thread, its prefetcher, and what brings sequences back to the host


class ChunkOrder(NamedTuple):
    """The next `tokens` of a request after the `stored` ones; `ids` are theirs."""

    request: int
    stored: int
    tokens: int
    emits: bool  # whether the next token comes out
    blocks: list[int]
    ids: list[int]


class Forward(NamedTuple):
    """Run one micro-batch through the rank's stage."""

    job: int
    kind: str  # prefill, decode or mixed
    chunks: tuple[ChunkOrder, ...]
    write_through: bool  # keys and values go to the host; the blocks are the host's


class Load(NamedTuple):
    """Replace the rank's weights by its shard of another layout."""

    job: int
    layout: str


class Swap(NamedTuple):
    """Copy blocks between the two tiers; the channel says in which direction."""

    job: int
    host_blocks: list[int]
    device_blocks: list[int]


class Open(NamedTuple):
    """Begin to serve a model; `setup` is a `session.Setup`."""

    setup: Any


class Close(NamedTuple):
    """Let go of the model."""


class Span(NamedTuple):
    """What a rank did when; seconds of the machine's monotonic clock, so that ranks compare.

    `kind` is prefill, decode, mixed, wait (for the stage before), swap-out, swap-in or load; on the lane `layers`, of
    a prompt batch whose layers leave, qkv or attention (and the MLP).
    """

    rank: int
    lane: str  # compute, layers, out or in
    kind: str
    start_s: float
    end_s: float
    job: int = -1
    layer: int = -1
    tokens: int = 0
    moved_bytes: int = 0  # between the tiers, or of weights
    network_s: float = 0.0  # within collectives


class Report(NamedTuple):
    """One part of a job is done on one rank: `compute`, `written`, `copied`, `loaded`, `opened` or `closed`.

    `counts` are what happened since the thread's last report; `emitted` pairs of request and token; `error` says
    what went wrong instead.
    """

    rank: int
    job: int
    part: str
    spans: tuple[Span, ...] = ()
    counts: dict[str, int] = {}  # noqa: RUF012 - never changed
    emitted: tuple[tuple[int, int], ...] = ()
    error: str = ""
    value: Any = None
