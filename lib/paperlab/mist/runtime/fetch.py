"""What the side lanes do around a module's passes: bring it in, put it away, reduce it, update it (§2.3)."""

from __future__ import annotations

from collections import Counter
from functools import partial

from torch import Tensor

from paperlab.mist.runtime.activations import SavedActivations
from paperlab.mist.runtime.build import Built
from paperlab.mist.runtime.lanes import Ticket
from paperlab.mist.runtime.memory import MemoryLedger
from paperlab.mist.runtime.optimizer import Staging, update
from paperlab.mist.runtime.partition import ModuleState


class Fetcher:
    """The hooks before and after every module's forward and backward pass.

    Memory is allocated and freed by the compute thread alone, at fixed points of the schedule, so that what the ledger
    sees does not depend on how fast a copy is.

    counters: bytes over the host link ("h2d weights", "d2h optimizer", ...) and into collectives ("gathered",
    "reduced").
    """

    def __init__(self, built: Built, counters: Counter[str]) -> None:
        self.built, self.states, self.lanes, self.ledger = built, built.states, built.lanes, built.ledger
        self.counters = counters
        self._ready: dict[int, list[Ticket]] = {}
        self._leaving: tuple[Ticket, SavedActivations] | None = None
        self._staging: Staging | None = None
        self._last_step: list[Ticket] = []

    def arrive(self, index: int) -> None:
        """Wait for everything that the module's pass needs."""
        for ticket in self._ready.pop(index, []):
            ticket.wait()

    def drain(self) -> None:
        """Wait for every lane."""
        for lane in self.lanes.values():
            lane.submit("", lambda: None).wait()

    # forward

    def before_forward(self, index: int, microbatch: int) -> None:
        """Bring in the module's weights, by way of its optimizer step if that is due."""
        state = self.states[index]
        self._ready[index] = self.step(index) if state.pending else self._load_weights(state, microbatch)

    def after_forward(self, index: int, microbatch: int, saved: SavedActivations) -> None:
        """Put away new weights and saved activations; those of the module before have left by now."""
        self._settle()
        self._store_weights(index, microbatch)
        if ratio := self.built.activation_offload(index):
            saved.plan_offload(ratio)
            self.counters["d2h activations"] += saved.moved_bytes
            lane = self.lanes["swap-out"]
            self._leaving = (lane.submit("activations", saved.copy_out, module=index, microbatch=microbatch), saved)

    def end_of_forward(self) -> None:
        """Wait for the last module's activations to leave, and let go of the optimizer's staging buffers."""
        self._settle()
        for ticket in self._last_step:
            ticket.wait()
        self._last_step, self._staging = [], None

    def _settle(self) -> None:
        if self._leaving is not None:
            ticket, saved = self._leaving
            ticket.wait()
            saved.release()
            self._leaving = None

    def _load_weights(self, state: ModuleState, microbatch: int) -> list[Ticket]:
        """Fill the module's ring slot: the own part from device and host memory, the rest from the other ranks."""
        if (ring := state.weight_ring) is None:
            return []
        self.counters["h2d weights"] += state.weights.host_bytes
        tags = {"module": state.index, "microbatch": microbatch}
        ready = ring.ready(state.index)
        loaded = self.lanes["swap-in"].submit("weights", lambda: state.weights.load(state.weight), ready, **tags)
        return [self._gather(state, loaded, microbatch) if state.zero >= 3 else loaded]

    def _gather(self, state: ModuleState, after: Ticket, microbatch: int = -1) -> Ticket:
        self.counters["gathered"] += state.weight.nbytes
        tags = {"module": state.index, "microbatch": microbatch}
        return self.lanes["unshard"].submit("all-gather", lambda: state.group.all_gather(state.weight), [after], **tags)

    def _store_weights(self, index: int, microbatch: int) -> None:
        """Write updated weights from the ring slot to where they live."""
        state = self.states[index]
        if state.weight_ring is not None and state.updated:
            self.counters["d2h weights"] += state.weights.host_bytes
            lane, tags = self.lanes["swap-out"], {"module": index, "microbatch": microbatch}
            state.weight_ring.leaving[index % 2] = lane.submit(
                "weights", lambda: state.weights.store(state.weight), (), **tags
            )
        state.updated = False

    # backward

    def before_backward(self, index: int, microbatch: int, saved: SavedActivations) -> None:
        """Bring in weights, offloaded activations and the gradients that this pass adds to."""
        state, lane = self.states[index], self.lanes["swap-in"]
        tags = {"module": index, "microbatch": microbatch}
        ready = self._load_weights(state, microbatch)
        if saved.moved_bytes:
            saved.reserve()
            self.counters["h2d activations"] += saved.moved_bytes
            ready.append(lane.submit("activations", saved.copy_in, (), **tags))
        if (ring := state.grad_ring) is not None:
            label, work = ("zero gradients", state.grad.zero_) if state.fresh else ("gradients", state.load_grads)
            self.counters["h2d gradients"] += 0 if state.fresh else state.grads.host_bytes
            ready.append(lane.submit(label, work, ring.ready(index), **tags))
        state.fresh = False
        self._ready[index] = ready

    def after_backward(self, index: int, microbatch: int, last: bool) -> None:
        """Reduce the module's gradients, after every micro-batch if they are sharded, and put them away."""
        state, tags = self.states[index], {"module": index, "microbatch": microbatch}
        reduced = []
        if state.zero >= 2 or (last and self.built.reducer.size > 1):
            self.counters["reduced"] += state.grad.nbytes
            reduced = [self.lanes["reduce"].submit("reduce", lambda: self.built.reduce(state), (), **tags)]
        if (ring := state.grad_ring) is not None:
            self.counters["d2h gradients"] += state.grads.host_bytes
            ring.leaving[index % 2] = self.lanes["swap-out"].submit(
                "gradients", lambda: state.grads.store(state.grad), reduced, **tags
            )
        state.pending = last

    # the optimizer

    def step(self, index: int) -> list[Ticket]:
        """Queue the module's optimizer step: states and gradients in, Adam, states out, weights to the other ranks.

        Steps take turns in one module's worth of staging buffers.
        """
        state = self.states[index]
        if self._staging is None:
            self._staging = Staging(self.states, self.ledger)
        staging, tags = self._staging, {"module": index}
        after = self._last_step + (state.grad_ring.ready(index) if state.grad_ring is not None else [])
        loaded = self.lanes["swap-in"].submit("optimizer", lambda: self._load_step(state, staging), after, **tags)
        after = [loaded, *(state.weight_ring.ready(index) if state.weight_ring is not None else [])]
        stepped = self.lanes["optimizer"].submit(
            "adam", lambda: self._update(state, staging, state.owned_grad()), after, **tags
        )
        self._last_step = [self.lanes["swap-out"].submit("optimizer", lambda: staging.store(state), [stepped], **tags)]
        self.stepped(state)
        return [self._gather(state, stepped)] if state.zero else [stepped]

    def stepped(self, state: ModuleState) -> None:
        """Note that the step of this iteration is taken, or queued."""
        moved = sum(part.host_bytes for part in state.optimizer)
        self.counters["h2d optimizer"] += moved
        self.counters["d2h optimizer"] += moved
        self.counters["h2d gradients"] += state.grads.host_bytes
        state.pending, state.fresh, state.updated = False, True, True

    def _load_step(self, state: ModuleState, staging: Staging) -> None:
        staging.load(state)
        if state.grads.host_bytes:
            state.grads.load(state.grad)

    def _update(self, state: ModuleState, staging: Staging, grad: tuple[Tensor, int]) -> None:
        update(state, staging, grad, self.built.options.adam, self.ledger)

    def flush(self) -> None:
        """Take all steps that are still due, one module after the other."""
        for index, state in enumerate(self.states):
            if state.pending:
                self.ledger.at("optimizer", f"module {index}:")
                self._ready[index] = self.step(index)
                self.arrive(index)
                self._store_weights(index, -1)
        self.end_of_forward()
        self.drain()

    def step_all(self) -> None:
        """Take all steps at once: every module's states and gradients are on the device at the same time."""
        self.ledger.at("optimizer", "all modules:")
        staged = [Staging([state], self.ledger) for state in self.states]
        grads = [_whole_grad(state, self.ledger) for state in self.states]
        lane = self.lanes["swap-in"]
        for state, staging, grad in zip(self.states, staged, grads, strict=True):
            lane.submit("optimizer", partial(_load_all, state, staging, grad), module=state.index)
        self.drain()
        for state, staging, grad in zip(self.states, staged, grads, strict=True):
            ready = [] if state.weight_ring is None else state.weight_ring.ready(state.index)
            work = self.lanes["optimizer"].submit(
                "adam", partial(self._update, state, staging, grad), ready, module=state.index
            )
            (self._gather(state, work) if state.zero else work).wait()
            self.stepped(state)
            self._store_weights(state.index, -1)
            self.lanes["swap-out"].submit("optimizer", partial(staging.store, state), module=state.index)
        self.drain()


def _whole_grad(state: ModuleState, ledger: MemoryLedger) -> tuple[Tensor, int]:
    """Return a buffer for this rank's gradients if some of them are in host memory, or else where they are."""
    if not state.grads.host_bytes:
        return state.owned_grad()
    return ledger.empty(state.grads.stop - state.grads.start, state.dtype), state.grads.start


def _load_all(state: ModuleState, staging: Staging, grad: tuple[Tensor, int]) -> None:
    staging.load(state)
    if state.grads.host_bytes:
        state.grads.load(*grad)
