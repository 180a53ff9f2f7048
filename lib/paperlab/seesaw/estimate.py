"""A fast forecast of a run's makespan, for ranking many layouts before the few best are simulated.

Sequences advance in lockstep rounds of one token each (a round takes the slowest stage's time once per pipeline group),
and time jumps from one sequence's end to the next; memory admits sequences as the simulator's policies do, in tokens
instead of blocks. Left out: pre-emption, unevenness between batches, copies, and the fill of the pipeline.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from paperlab.seesaw.baselines import AHEAD_TOKENS
from paperlab.seesaw.prices import Prices
from paperlab.seesaw.simulation import BLOCK_SIZE, Run
from paperlab.serving.request import Request
from paperlab.serving.work import StepShape


def estimate_s(run: Run, requests: Iterable[Request]) -> float:
    """Return the forecast makespan of `run` in seconds; infinite where the model or no request fits."""
    if run.gpu_tokens < BLOCK_SIZE:
        return float("inf")
    longest = min(run.gpu_tokens, run.model.max_positions)
    sizes = [(item.prompt_tokens, item.output_tokens) for item in requests]
    fitting = [(prompt, output) for prompt, output in sizes if prompt + output <= longest]
    mine = fitting[:: run.prefill.dp]
    if not mine:
        return float("inf")
    if run.decode is None:
        return _Static(run, mine).makespan_s()
    return _resharding_s(run, mine)


def _resharding_s(run: Run, sizes: list[tuple[int, int]]) -> float:
    assert run.decode is not None
    prefill, decode = Prices(run.model, run.prefill, run.node), Prices(run.model, run.decode, run.node)
    prompts_s = sum(batch_s(prefill, tokens, run.prefill_tokens) for tokens, _ in sizes)
    rounds = _Rounds(decode, run.gpu_tokens, run.max_sequences)
    for prompt, output in sizes:
        while not rounds.admits(prompt, BLOCK_SIZE):
            rounds.advance()
        rounds.add(prompt, output - 1)
    while rounds.ends:
        rounds.advance()
    cycles = -(-sum(prompt for prompt, _ in sizes) // max(1, run.host_tokens))
    switch_s = 0.0 if run.prefill.replica == run.decode.replica else max(prefill.load_s, decode.load_s)
    return prompts_s + rounds.clock_s + (2 * cycles - 1) * switch_s


def batch_s(prices: Prices, tokens: int, budget: int) -> float:
    """Return a prompt's part of the slowest stage's time for a batch of such prompts."""
    count = max(1, budget // tokens)
    return max(prices.compute_s(_prompts(tokens, count))) / count


def _prompts(tokens: int, count: int = 1) -> StepShape:
    return StepShape(count * tokens, 0, count * tokens * (tokens + 1) // 2, logits=count)


class _Rounds:
    """Decoding in lockstep: sequences end at whole rounds; the clock jumps from end to end."""

    def __init__(self, prices: Prices, capacity_tokens: int, max_sequences: int) -> None:
        self.prices, self.groups, self.capacity = prices, prices.stages, capacity_tokens
        self.most = max_sequences * prices.stages
        self.ends: list[tuple[int, int]] = []  # round of the end, prompt minus round of the start
        self.round = 0
        self.stored = 0  # tokens of all sequences at round 0 of the clock, so that `held` needs no loop
        self.clock_s = 0.0

    @property
    def held(self) -> int:
        """Tokens in the cache now."""
        return self.stored + len(self.ends) * self.round

    def admits(self, prompt: int, ahead: int) -> bool:
        """Whether a prompt fits beside room to grow for each sequence; an empty cache admits anything."""
        if not self.ends:
            return True
        return len(self.ends) < self.most and self.held + prompt + ahead * (len(self.ends) + 1) <= self.capacity

    def add(self, prompt: int, rounds: int) -> None:
        """Take in a sequence that will end after `rounds`."""
        if rounds > 0:
            heapq.heappush(self.ends, (self.round + rounds, prompt - self.round))
            self.stored += prompt - self.round

    def advance(self, rounds: int | None = None, prompt_step: StepShape | None = None) -> None:
        """Run to the next end, or for at most `rounds`, each with `prompt_step` in every group."""
        left = self.ends[0][0] - self.round if self.ends else rounds or 0
        steps = left if rounds is None else min(rounds, left)
        self.clock_s += steps * self.round_s(steps, prompt_step)
        self.round += steps
        while self.ends and self.ends[0][0] <= self.round:
            _, offset = heapq.heappop(self.ends)
            self.stored -= offset

    def round_s(self, steps: int, prompt_step: StepShape | None = None) -> float:
        """Return the mean seconds of a round over the next `steps`."""
        count = -(-len(self.ends) // self.groups)
        context = (self.held + len(self.ends) * (steps + 1) / 2) / self.groups
        shape = StepShape(0, 0, 0, count, int(context), count)
        if prompt_step is not None:
            shape = StepShape(*prompt_step[:3], count, int(context), count + prompt_step.logits)
        seconds = self.prices.compute_s(shape)
        groups = min(self.groups, max(1, len(self.ends))) if prompt_step is None else self.groups
        return max(max(seconds) * groups, sum(seconds))


class _Static:
    """One layout: prompts in batches of their own (`chunk_tokens` 0), or in chunks beside the decodes."""

    def __init__(self, run: Run, sizes: list[tuple[int, int]]) -> None:
        self.run, self.waiting = run, deque(sizes)
        self.prices = Prices(run.model, run.prefill, run.node)
        self.rounds = _Rounds(self.prices, run.gpu_tokens, run.max_sequences)

    def makespan_s(self) -> float:
        while self.waiting or self.rounds.ends:
            admitted = self._admit()
            if not admitted:
                self.rounds.advance()
            elif self.run.chunk_tokens:
                self._chunked(admitted)
            else:
                self._apart(admitted)
        return self.rounds.clock_s

    def _admit(self) -> list[tuple[int, int]]:
        """Return the waiting prompts that fit now."""
        found: list[tuple[int, int]] = []
        ahead = AHEAD_TOKENS * len(self.rounds.ends)
        free = self.rounds.capacity - self.rounds.held
        while self.waiting and len(found) + len(self.rounds.ends) < self.rounds.most:
            needed = self.waiting[0][0] + AHEAD_TOKENS
            if ahead + needed > free and (found or self.rounds.ends):
                break
            free -= needed
            found.append(self.waiting.popleft())
        return found

    def _apart(self, admitted: list[tuple[int, int]]) -> None:
        """Prompts run alone; a lone batch passes all stages while the decodes behind it wait."""
        total = sum(batch_s(self.prices, prompt, self.run.prefill_tokens) for prompt, _ in admitted)
        batches = sum(prompt for prompt, _ in admitted) / self.run.prefill_tokens
        passes = min(self.prices.stages, max(1.0, batches))
        self.rounds.clock_s += total * (1 + (self.prices.stages - 1) / passes)
        for prompt, output in admitted:
            self.rounds.add(prompt, output - 1)

    def _chunked(self, admitted: list[tuple[int, int]]) -> None:
        """Prompts run in chunks, as many at a time as there are groups; each joins the decodes once it is through."""
        stages = self.prices.stages
        for index in range(0, len(admitted), stages):
            together = admitted[index : index + stages]
            left = max(prompt for prompt, _ in together)
            while left > 0:
                tokens = max(1, self.run.chunk_tokens - len(self.rounds.ends) // stages)
                steps = max(1, -(-left // tokens))
                tokens, before = min(tokens, left), self.rounds.round
                pairs = tokens * max(0, left // 2) + tokens * (tokens + 1) // 2
                step = StepShape(tokens, max(0, left // 2), pairs, logits=0)
                self.rounds.advance(steps, step)
                left -= tokens * max(1, self.rounds.round - before)
            for prompt, output in together:
                self.rounds.add(prompt, output - 1)
