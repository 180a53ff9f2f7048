"""The skip-join multi-level feedback queue: who stands where, kept in order between decisions."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from paperlab.serving.cluster import Cluster
from paperlab.serving.request import Sequence

Key = tuple[int, float, int]  # queue, then first come, first served
CHECKS_PER_STARVATION = 10  # starving requests are looked for so often, not at every iteration


@dataclass(slots=True)
class _Standing:
    """Where a request stands: its queue, what it used of its quantum, and when it was last served."""

    sequence: Sequence
    level: int
    used_s: float
    served_s: float

    @property
    def key(self) -> Key:
        return self.level, *self.sequence.arrival_order


class FeedbackQueue:
    """Queues with doubling quanta; 0 is the highest. It learns all it needs from the cluster and its log."""

    def __init__(self, levels: int, quantum_s: float, starvation_s: float, prefill_s_per_token: float) -> None:
        """Start empty.

        Raises:
            ValueError: a number of levels, a quantum or a time that is not positive.
        """
        for name, value in (("levels", levels), ("quantum_s", quantum_s), ("starvation_s", starvation_s)):
            if not value > 0:
                raise ValueError(f"feedback queue: {name} is {value}; it must be positive")
        self.quanta_s = [quantum_s * 2**level for level in range(levels)]
        self.starvation_s, self.prefill_s_per_token = starvation_s, prefill_s_per_token
        self._standing: dict[int, _Standing] = {}
        self._keys: list[Key] = []  # sorted, and the sequence of each at the same place
        self._line: list[Sequence] = []
        self._steps_read = self._requests_read = 0
        self._checked_s = 0.0

    def line(self) -> list[Sequence]:
        """Return all unfinished sequences, the most urgent first; the queue's own list, not to be changed."""
        return self._line

    def level(self, sequence: Sequence) -> int:
        """Return the queue that `sequence` stands in."""
        return self._standing[sequence.request.request_id].level

    def entry_level(self, prompt_tokens: int) -> int:
        """Return the first queue whose quantum covers the prefill (skip-join), the last where none does."""
        first_s = prompt_tokens * self.prefill_s_per_token
        return min(sum(quantum_s < first_s for quantum_s in self.quanta_s), len(self.quanta_s) - 1)

    def update(self, cluster: Cluster) -> None:
        """Let new requests join, charge finished iterations, and raise the starved; calling it twice does no harm."""
        if len(cluster.log.requests) > self._requests_read:
            self._requests_read = len(cluster.log.requests)
            for sequence in cluster.waiting:
                self._join(sequence)
        self._charge(cluster)
        if cluster.now_s - self._checked_s > self.starvation_s / CHECKS_PER_STARVATION:
            self._checked_s = cluster.now_s
            for standing in list(self._standing.values()):
                if standing.level and cluster.now_s - standing.served_s > self.starvation_s:
                    self._move(standing, 0)
                    standing.served_s = cluster.now_s

    def _join(self, sequence: Sequence) -> None:
        request = sequence.request
        if request.request_id not in self._standing:
            level = self.entry_level(request.prompt_tokens)
            standing = _Standing(sequence, level, 0.0, request.arrival_s)
            self._standing[request.request_id] = standing
            self._insert(standing)

    def _charge(self, cluster: Cluster) -> None:
        steps, lowest = cluster.log.steps, len(self.quanta_s) - 1
        for step in steps[self._steps_read :]:
            seconds = step.end_s - step.start_s
            for request_id in step.requests:
                standing = self._standing[request_id]
                standing.used_s += seconds
                standing.served_s = step.end_s
                if standing.sequence.pool is None:  # what has just run has memory unless it has finished
                    self._leave(standing)
                elif standing.used_s >= self.quanta_s[standing.level] and standing.level < lowest:
                    self._move(standing, standing.level + 1)
        self._steps_read = len(steps)

    def _move(self, standing: _Standing, level: int) -> None:
        self._remove(standing)
        standing.level, standing.used_s = level, 0.0
        self._insert(standing)

    def _leave(self, standing: _Standing) -> None:
        self._remove(standing)
        del self._standing[standing.sequence.request.request_id]

    def _insert(self, standing: _Standing) -> None:
        place = bisect_left(self._keys, standing.key)
        self._keys.insert(place, standing.key)
        self._line.insert(place, standing.sequence)

    def _remove(self, standing: _Standing) -> None:
        place = bisect_left(self._keys, standing.key)
        del self._keys[place], self._line[place]
