"""Real execution of a policy: the wall clock instead of a virtual one, a thread per lane where there are several.

One lock guards the cluster. Under it, whoever has changed something offers work to every idle lane in the policy's
order, as the simulator does; the forward passes and copies run outside. So lanes overlap as far as the hardware lets
them, none is starved of the lock, and the log's times are when things happened.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import torch

from paperlab.serving.cluster import Cluster, Job
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.engine.runner import Runner
from paperlab.serving.engine.sampling import Sampler, choose
from paperlab.serving.engine.streams import Streams
from paperlab.serving.events import EventLog
from paperlab.serving.policy import Policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Stalled
from paperlab.serving.work import Compute, Copy, Decision

OnToken = Callable[[int, int], None]


class Executor:
    """Serves one set of requests by one policy over one cluster."""

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        runner: Runner,
        stores: Mapping[str, KvStore],
        streams: Streams,
        tokens: dict[int, list[int]],
        samplers: Mapping[int, Sampler],
        on_token: OnToken | None = None,
    ) -> None:
        """`tokens` holds the prompts by request id and grows by what is generated; `on_token(id, token)` hears of it.

        `stores` are by pool name.
        """
        self.policy, self.cluster, self.runner, self.stores = policy, cluster, runner, stores
        self.streams, self.tokens, self.samplers, self.on_token = streams, tokens, samplers, on_token
        self._lock = threading.Lock()
        # Only whom a change concerns is woken: a thread that wakes for nothing takes the interpreter from the others.
        self._given = {lane: threading.Condition(self._lock) for lane in cluster.lanes}
        self._ended = threading.Condition(self._lock)
        self._upcoming: deque[Request] = deque()
        self._stopping = False
        self._failure: BaseException | None = None

    def run(self, requests: Iterable[Request]) -> EventLog:
        """Serve `requests` to the end, each from its arrival on; returns the cluster's log.

        Raises:
            Stalled: the policy leaves requests lying though nothing runs and nothing will arrive.
            Exception: whatever a lane met; the other lanes end first.
        """
        self._upcoming = deque(sorted(requests, key=lambda request: (request.arrival_s, request.request_id)))
        lanes = [threading.Thread(target=self._guarded, args=(name,), name=name) for name in self.cluster.lanes]
        cores = torch.get_num_threads()
        if sum(lane.kind == "compute" for lane in self.cluster.lanes.values()) > 1:
            torch.set_num_threads(1)  # a lane on the CPU is one core; threads inherit the number
        self._origin_s = time.perf_counter()
        try:
            for lane in lanes:
                lane.start()
            self._receive()
        finally:  # an interrupt must not leave lanes behind
            self.stop()
            for lane in lanes:
                if lane.ident is not None:
                    lane.join()
            torch.set_num_threads(cores)
        if self._failure is not None:
            raise self._failure
        return self.cluster.log

    def stop(self) -> None:
        """Let every lane end what it is doing and start nothing more."""
        with self._lock:
            self._end()

    @property
    def _over(self) -> bool:
        return self._stopping or not (self._upcoming or self.cluster.unfinished)

    def _end(self, failure: BaseException | None = None) -> None:
        self._failure = self._failure or failure
        self._stopping = True
        for condition in (self._ended, *self._given.values()):
            condition.notify_all()

    def _receive(self) -> None:
        """Take in every request when its time has come, and wait for the end."""
        with self._lock:
            while self._upcoming and not self._stopping:
                self.cluster.now_s = self._now_s()
                if self._upcoming[0].arrival_s > self.cluster.now_s:
                    self._ended.wait(self._upcoming[0].arrival_s - self.cluster.now_s)
                    continue
                while self._upcoming and self._upcoming[0].arrival_s <= self.cluster.now_s:
                    self.cluster.arrive(self._upcoming.popleft())
                self._dispatch()
            self._ended.wait_for(lambda: self._over)

    def _dispatch(self) -> None:
        """Offer work to idle lanes and wake those that got some."""
        cluster = self.cluster
        if not self._stopping:
            cluster.dispatch(self._decide, lambda lane, job: self._given[lane].notify())
        if cluster.unfinished and not (cluster.jobs or self._upcoming or self._stopping):
            raise Stalled(f"{self.policy.name}: {cluster.unfinished} requests left and nothing to run")
        if self._over:
            self._end()

    def _decide(self, lane: str) -> tuple[Decision, float]:
        began_s = time.perf_counter()
        decision = self.policy.schedule(lane, self.cluster)
        scheduler_s = time.perf_counter() - began_s
        self.cluster.now_s = self._now_s()
        return decision, scheduler_s

    def _guarded(self, lane: str) -> None:
        try:
            self._drive(lane)
        except BaseException as error:
            with self._lock:
                self._end(error)

    def _drive(self, lane: str) -> None:
        """Do the lane's jobs until the run is over."""
        jobs = self.cluster.jobs
        while True:
            with self._lock:
                self._given[lane].wait_for(lambda: self._over or lane in jobs)
                if self._over:
                    return
            fresh = self._perform(lane, jobs[lane])
            with self._lock:
                self._commit(lane, fresh)
                self._dispatch()

    def _perform(self, lane: str, job: Job) -> dict[int, int]:
        """Do the job outside the lock; returns the new token of each request that got one."""
        if isinstance(job.work, Copy):
            with self.streams.on(lane, 1.0):
                self._copy(job.work, job.incoming)
            return {}
        if not isinstance(job.work, Compute) or job.work.target is not None:
            raise TypeError(f"{self.policy.name}: this engine has one device and one configuration: {job.work}")
        return self._compute(lane, job.work)

    def _compute(self, lane: str, work: Compute) -> dict[int, int]:
        store = self.stores[self.cluster.lanes[lane].resource]
        with self.streams.on(lane, work.share):
            emitting, logits_LV = self.runner.run(work.chunks, self.tokens, store)
            fresh = choose(logits_LV, [self.samplers[request] for request in emitting]) if emitting else []
        return dict(zip(emitting, fresh, strict=True))

    def _copy(self, work: Copy, incoming: list[list[int]]) -> None:
        for sequence, target in zip(work.sequences, incoming, strict=True):
            self.stores[work.target].copy_from(self.stores[str(sequence.pool)], sequence.blocks, target)

    def _commit(self, lane: str, fresh: dict[int, int]) -> None:
        self.cluster.now_s = self._now_s()
        for request, token in fresh.items():
            self.tokens[request].append(token)
            if self.on_token is not None:  # under the lock, or another lane's next token might be heard of first
                self.on_token(request, token)
        stopped = [request for request, token in fresh.items() if token in self.samplers[request].stop_tokens]
        self.cluster.finish(lane, stopped)

    def _now_s(self) -> float:
        return time.perf_counter() - self._origin_s
