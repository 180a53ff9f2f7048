"""Where the lanes of a policy issue their work: threads on a CPU, streams on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CpuStreams:
    """Lanes are threads of one core each; a lane's share of the device has no meaning here.

    Lanes then show real interleaving, contention for memory and the scheduler's cost, but no partition: two cores
    are split one to one whatever a policy asks for.
    """

    partition = "unpartitioned"

    @contextmanager
    def on(self, lane: str, share: float) -> Iterator[None]:
        """Do nothing: a CPU's work is done when the call returns."""
        yield
