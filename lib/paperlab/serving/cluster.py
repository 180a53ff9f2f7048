"""The state of a serving cluster: sequences, pools and lanes, and the only code that changes them.

Policies read it and return decisions; an executor (simulator or engine) begins and finishes them here. So both
executors share queueing, memory accounting and pre-emption to the last block.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping

from paperlab.serving.events import EventLog, Move, Step, Switch
from paperlab.serving.kv import BlockPool
from paperlab.serving.lanes import Job, Lane
from paperlab.serving.request import Request, Sequence
from paperlab.serving.work import Compute, Copy, Decision, Reconfigure, step_shape

__all__ = ["Cluster", "Job", "Lane", "by_arrival"]


class Cluster:
    """Sequences by state, pools by name, lanes by name, and the clock. Read-only for policies.

    A sequence is in `waiting` (holds no memory; sorted by arrival), `active` (holds device memory; in order of
    admission), or `parked` (holds host memory). Those in flight have `lane` set. `configurations` are by device, and
    empty names where a device has only one.
    """

    def __init__(self, lanes: Iterable[Lane], pools: Iterable[BlockPool], max_tokens: int, log: EventLog) -> None:
        """Start empty. `max_tokens` is the longest sequence, prompt and output, that the model can hold."""
        self.lanes = {lane.name: lane for lane in lanes}
        self.pools = {pool.name: pool for pool in pools}
        self.jobs: dict[str, Job] = {}
        self.now_s = 0.0
        self.log = log
        self.waiting: list[Sequence] = []
        self.active: dict[int, Sequence] = {}
        self.parked: dict[int, Sequence] = {}
        self._hosts = {name for name in self.pools if name.startswith("host")}
        devices = {lane.resource for lane in self.lanes.values() if lane.kind == "compute"}
        if missing := devices - set(self.pools):
            raise ValueError(f"cluster: compute lanes need pools named {sorted(missing)}; there are {list(self.pools)}")
        fitting = min(self.pools[name].capacity_tokens for name in devices)
        self._longest = min(max_tokens, fitting)
        self.configurations = dict.fromkeys(devices, "")
        self.reconfiguring: set[str] = set()

    @property
    def unfinished(self) -> int:
        """Sequences admitted or waiting."""
        return len(self.waiting) + len(self.active) + len(self.parked)

    def pool_of(self, lane: str) -> BlockPool:
        """Return the pool that a compute lane works on."""
        return self.pools[self.lanes[lane].resource]

    def computing(self, device: str) -> bool:
        """Whether any lane of `device` is busy."""
        return any(self.lanes[lane].resource == device for lane in self.jobs)

    def arrive(self, request: Request) -> Sequence | None:
        """Take a request into the waiting line, or refuse it alone where it can never fit."""
        self.log.requests[request.request_id] = request
        self.log.note(request.arrival_s, "arrive", request.request_id)
        needed = request.prompt_tokens + request.output_tokens
        if needed > self._longest:
            reason = f"prompt and output need {needed} tokens; at most {self._longest} fit"
            self.log.note(self.now_s, "refuse", request.request_id, reason)
            return None
        sequence = Sequence(request)
        insort(self.waiting, sequence, key=lambda item: item.arrival_order)
        return sequence

    def begin(self, lane: str, decision: Decision, scheduler_s: float = 0.0) -> Job | None:
        """Carry out a decision's pre-emptions and put its work on the idle lane; returns the job, if any."""
        for kind, detail in decision.notes:
            self.log.note(self.now_s, kind, None, detail)
        for sequence in decision.preempt:
            self.preempt(sequence)
        work = decision.work
        if work is None:
            return None
        assert lane not in self.jobs, f"lane {lane} is busy"
        job = Job(work, self.now_s, scheduler_s)
        if isinstance(work, Compute):
            self._begin_compute(lane, work, job)
        elif isinstance(work, Copy):
            job.incoming = self._begin_copy(lane, work)
        else:
            assert not self.computing(self.lanes[lane].resource), f"lane {lane} reconfigures a busy device"
            self.reconfiguring.add(self.lanes[lane].resource)
        self.jobs[lane] = job
        return job

    def dispatch(self, decide: Callable[[str], tuple[Decision, float]], begun: Callable[[str, Job], None]) -> None:
        """Offer work to idle lanes until none takes any; what one starts or drops may enable another.

        Args:
            decide: returns the decision for an idle lane, and the seconds that it took.
            begun: hears of each job that has begun.
        """
        offered = True
        while offered:
            offered = False
            for lane in self.lanes:
                if lane in self.jobs or not self.unfinished:
                    continue
                decision, scheduler_s = decide(lane)
                job = self.begin(lane, decision, scheduler_s)
                if job is not None:
                    begun(lane, job)
                offered |= bool(decision.preempt) or (job is not None and len(self.lanes) > 1)

    def _begin_compute(self, lane: str, work: Compute, job: Job) -> None:
        device = self.lanes[lane].resource
        assert device not in self.reconfiguring, f"lane {lane} computes while {device} is reconfigured"
        target = work.target
        pool = self.pools[target or device]
        job.shape = step_shape(work.chunks)
        block_size, name = pool.block_size, pool.name
        for sequence, tokens in work.chunks:
            computed = sequence.computed
            assert sequence.lane is None, f"request {sequence.request.request_id} is already on lane {sequence.lane}"
            known = sequence.request.prompt_tokens + sequence.generated
            assert 0 < tokens <= known - computed, f"{tokens} tokens of {known - computed} pending"
            assert not target or tokens == known, "only whole prompts are written through"
            if sequence.pool is None:
                self.waiting.remove(sequence)
                sequence.pool = name
                self._home(name)[sequence.request.request_id] = sequence
            assert sequence.pool == name, f"keys and values lie in {sequence.pool}, the lane works on {name}"
            missing = -(-(computed + tokens) // block_size) - len(sequence.blocks)
            if missing > 0:
                sequence.blocks += pool.allocate(missing)
            sequence.lane = lane
        job.kv_used = self.pool_of(lane).used

    def _begin_copy(self, lane: str, work: Copy) -> list[list[int]]:
        incoming = []
        for sequence in work.sequences:
            assert sequence.lane is None, f"request {sequence.request.request_id} is already on lane {sequence.lane}"
            assert sequence.pool not in (None, work.target), f"no keys and values to bring to {work.target}"
            incoming.append(self.pools[work.target].allocate(len(sequence.blocks)))
            sequence.lane = lane
        return incoming

    def finish(self, lane: str, stopped: Iterable[int] = ()) -> Job:
        """End the lane's job at `now_s`; `stopped` are ids whose new token ends them early. Returns the job."""
        job = self.jobs.pop(lane)
        if isinstance(job.work, Compute):
            self._finish_compute(lane, job.work, job, frozenset(stopped))
        elif isinstance(job.work, Copy):
            self._finish_copy(lane, job.work, job)
        else:
            self._finish_switch(lane, job.work, job)
        return job

    def _finish_switch(self, lane: str, work: Reconfigure, job: Job) -> None:
        device = self.lanes[lane].resource
        self.reconfiguring.remove(device)
        source, self.configurations[device] = self.configurations[device], work.target
        self.log.switches.append(Switch(lane, job.start_s, self.now_s, source, work.target))

    def _finish_compute(self, lane: str, work: Compute, job: Job, stopped: frozenset[int]) -> None:
        ids, emitted = [], []
        for sequence, tokens in work.chunks:
            request = sequence.request
            ids.append(request.request_id)
            sequence.lane = None
            sequence.computed += tokens
            if sequence.computed < request.prompt_tokens + sequence.generated:
                continue
            sequence.generated += 1
            emitted.append(request.request_id)
            if sequence.generated >= request.output_tokens or request.request_id in stopped:
                del self._home(str(sequence.pool))[request.request_id]
                self._drop(sequence)
                self.log.note(self.now_s, "finish", request.request_id)
        assert job.shape is not None
        timing = (job.start_s, self.now_s, job.scheduler_s)
        self.log.steps.append(
            Step(lane, *timing, work.share, job.shape, tuple(ids), tuple(emitted), job.kv_used, work.target or "")
        )

    def _finish_copy(self, lane: str, work: Copy, job: Job) -> None:
        source, blocks = "", 0
        for sequence, target_blocks in zip(work.sequences, job.incoming, strict=True):
            source, blocks = str(sequence.pool), blocks + len(target_blocks)
            self.pools[source].release(sequence.blocks)
            sequence.blocks, sequence.pool, sequence.lane = target_blocks, work.target, None
            self._home(source).pop(sequence.request.request_id)
            self._home(work.target)[sequence.request.request_id] = sequence
        ids = tuple(sequence.request.request_id for sequence in work.sequences)
        self.log.moves.append(Move(lane, job.start_s, self.now_s, ids, source, work.target, blocks))

    def _home(self, pool: str) -> dict[int, Sequence]:
        return self.parked if pool in self._hosts else self.active

    def preempt(self, sequence: Sequence) -> None:
        """Drop a sequence's keys and values; it waits and will be computed anew (recompute, as in vLLM)."""
        assert sequence.lane is None, f"request {sequence.request.request_id} is in flight on {sequence.lane}"
        self._home(str(sequence.pool)).pop(sequence.request.request_id)
        lost = sequence.computed
        self._drop(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        insort(self.waiting, sequence, key=lambda item: item.arrival_order)
        self.log.note(self.now_s, "preempt", sequence.request.request_id, f"{lost} tokens to compute again", lost)

    def _drop(self, sequence: Sequence) -> None:
        self.pools[str(sequence.pool)].release(sequence.blocks)
        sequence.blocks, sequence.pool = [], None

    def check(self) -> None:
        """Raise AssertionError unless every block of every pool is accounted for (conservation)."""
        owned: dict[str, list[list[int]]] = {name: [] for name in self.pools}
        for sequence in [*self.active.values(), *self.parked.values()]:
            owned[str(sequence.pool)].append(sequence.blocks)
        for job in self.jobs.values():
            if isinstance(job.work, Copy):
                owned[job.work.target] += job.incoming
        for name, pool in self.pools.items():
            pool.check(owned[name])


def by_arrival(sequences: Mapping[int, Sequence] | Iterable[Sequence]) -> list[Sequence]:
    """Return sequences first come, first served."""
    items = sequences.values() if isinstance(sequences, Mapping) else sequences
    return sorted(items, key=lambda item: item.arrival_order)
