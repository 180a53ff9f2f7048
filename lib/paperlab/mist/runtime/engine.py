"""Trains a plan on this process's rank: micro-batches through the pipeline, iteration after iteration."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from paperlab.mist.blocks import DTYPES
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Built, Options, build, check_runnable
from paperlab.mist.runtime.groups import make_groups, world
from paperlab.mist.runtime.memory import LiveTensors, Peak, Pool
from paperlab.mist.runtime.schedule import Step, one_forward_one_backward
from paperlab.mist.runtime.stage import StageRunner
from paperlab.mist.runtime.trace import Span


@dataclass
class RankResult:
    """What one rank did.

    losses: mean loss per iteration over all ranks of the last stage (empty elsewhere). iteration_s: wall time per
    iteration in seconds, without that of the first one's set-up. peaks: by (pool, phase) over all iterations but the
    first, which has no optimizer step. counters: of the last iteration; see `StageRunner`. grads, weights: flat fp32
    tensors by module of this tensor-parallel rank, the gradients per iteration; only where asked for.
    """

    rank: int
    stage: int
    tp_rank: int
    losses: list[float] = field(default_factory=list)
    iteration_s: list[float] = field(default_factory=list)
    peaks: dict[tuple[Pool, str], Peak] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    grads: list[list[Tensor]] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    def peak(self, pool: Pool = "device", phase: str | None = None) -> Peak:
        """Return the highest peak of a pool, over the phases of training or within one."""
        found = [peak for (p, name), peak in self.peaks.items() if p == pool and phase in (None, name)]
        return max(found, key=lambda peak: peak.bytes, default=Peak(0, ""))


def synthetic_tokens(spec: ModelSpec, global_batch: int, iteration: int, seed: int) -> Tensor:
    """Return one iteration's token ids, global batch × (sequence + 1): the same whatever the plan."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + iteration)
    return torch.randint(spec.shape.vocab, (global_batch, spec.seq_len + 1), generator=generator)


def train(plan: Plan, iterations: int = 3, options: Options | None = None, capture: bool = False) -> RankResult | None:
    """Run `iterations` training iterations of `plan`, and the optimizer steps that remain; None on idle ranks.

    Every rank of the world calls this together, also those the plan has no use for.

    capture: also return gradients and final weights, gathered over the data-parallel ranks.

    Raises:
        ValueError: the plan does not fit the number of ranks or the device.
    """
    rank, ranks = world()
    check_runnable(plan, ranks)
    make_groups(plan)
    if rank >= plan.cluster.gpus:
        return None
    built = build(plan, options or Options())
    try:
        return Trainer(built, capture).run(iterations)
    finally:
        for lane in built.lanes.values():
            lane.close()


class Trainer:
    """The loop of one rank."""

    def __init__(self, built: Built, capture: bool) -> None:
        self.built, self.plan, self.options, self.capture = built, built.plan, built.options, capture
        self.runner = StageRunner(built)
        self.result = RankResult(built.trace.rank, built.place.stage, built.place.tp_rank)
        self.steps = list(one_forward_one_backward(built.place.stage, len(self.plan.stages), self.plan.accumulation))

    @torch.no_grad()
    def run(self, iterations: int) -> RankResult:
        """Train and report."""
        result, ledger = self.result, self.built.ledger
        for iteration in range(iterations):
            self.built.trace.iteration = iteration
            if iteration == 1:
                ledger.reset_peaks()
            self.runner.counters.clear()
            started_s = time.perf_counter()
            with self._accounting():
                loss = self._iteration(iteration)
            result.iteration_s.append(time.perf_counter() - started_s)
            if self.built.kinds[-1] == "head":
                result.losses.append(float(self.built.reducer.all_reduce(loss)))
            if self.capture:
                result.grads.append([state.gathered_grads() for state in self.built.states])
        result.counters = {name: count for name, count in self.runner.counters.items() if count}
        with self._accounting():
            self.runner.fetcher.flush()
        result.peaks, result.spans = dict(ledger.peaks), self.built.trace.spans()
        if self.capture:
            result.weights = [state.gathered_weights() for state in self.built.states]
        return result

    def _accounting(self) -> AbstractContextManager[object]:
        return LiveTensors(self.built.ledger) if self.options.account else nullcontext()

    def _iteration(self, iteration: int) -> Tensor:
        """Run all micro-batches; returns this rank's part of the mean loss, a zero where the head is elsewhere."""
        batches = self._batches(iteration)
        share = 1 / (self.plan.accumulation * self.built.layout.dp)
        unit = torch.full((), share, device=self.built.device)
        loss = torch.zeros((), device=self.built.device)
        arrived = self._exchange(None, None, self.steps[0])
        for step, following in pairwise([*self.steps, None]):
            assert step is not None
            result: Tensor | None
            if step.kind == "forward":
                tokens, labels = batches[step.microbatch]
                made = self.runner.forward(step.microbatch, tokens if arrived is None else arrived, labels)
                is_loss = self.built.kinds[-1] == "head"
                loss += share * made if is_loss else 0
                result = None if is_loss else made
                del made
            else:
                last = step.microbatch == self.plan.accumulation - 1
                result = self.runner.backward(step.microbatch, unit if arrived is None else arrived, last)
            arrived = None
            arrived = self._exchange(step, result, following)
        self.built.links.flush()
        self.runner.fetcher.drain()
        if not self.options.decoupled:
            self.runner.fetcher.step_all()
        return loss

    def _exchange(self, step: Step | None, result: Tensor | None, following: Step | None) -> Tensor | None:
        """Send what `step` made and receive what `following` needs; None where that is made on this rank."""
        links, send, receive = self.built.links, [], []
        if step is not None and result is not None:
            send = [(result, links.behind if step.kind == "forward" else links.before)]
        source = None
        if following is not None:
            source = links.before if following.kind == "forward" else links.behind
        if source is not None:
            receive = [(self._hidden(), source)]
        if not receive and not any(peer is not None for _, peer in send):
            return None
        with self.built.trace.span("pipeline", "exchange", -1, step.microbatch if step else -1):
            links.exchange(send, receive)
        return receive[0][0] if receive else None

    def _hidden(self) -> Tensor:
        """Return room for one micro-batch's hidden states, in the layout of the blocks."""
        spec, b = self.plan.model, self.built.layout.micro_batch
        leading = (b, spec.seq_len) if spec.attention == "flash" else (spec.seq_len, b)
        return torch.empty((*leading, spec.shape.hidden), dtype=DTYPES[spec.dtype], device=self.built.device)

    def _batches(self, iteration: int) -> list[tuple[Tensor, Tensor]]:
        """Return tokens and labels, both B S, of this rank's micro-batches."""
        plan, layout = self.plan, self.built.layout
        tokens = synthetic_tokens(plan.model, plan.global_batch, iteration, self.options.seed)
        shape = (plan.accumulation, layout.dp, layout.micro_batch, plan.model.seq_len + 1)
        own = tokens.view(shape)[:, self.built.place.dp_rank].to(self.built.device)
        return [(batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in own]
