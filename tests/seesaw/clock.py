"""An independent simulator of re-sharding with transition minimization: small ticks, plain lists, no shared code.

One replica; decoding in one stage. Blocks hold one token, so that memory is counted in tokens.
"""

from __future__ import annotations


class Ticks:
    """Advances everything by `dt` and looks at all conditions at every tick."""

    def __init__(self, sizes, stages_s, decode_s, copy_s, load_s, gpu, host, budget, depth, dt):
        """`stages_s(tokens)` seconds at each prefill stage, `decode_s(contexts)` of a step, `copy_s` per token."""
        self.coming = [[index, prompt, output, 0] for index, (prompt, output) in enumerate(sizes)]
        self.waiting = []
        self.stages_s, self.decode_s, self.copy_s, self.load_s = stages_s, decode_s, copy_s, load_s
        self.gpu, self.host, self.budget, self.depth, self.dt = gpu, host, budget, depth, dt
        self.time, self.phase, self.turns = 0.0, "prefill", 0
        self.flying, self.staged, self.resident = [], [], []  # batches in the pipeline, on the host, on the GPU
        self.step, self.copying, self.loading = None, None, None
        self.done = []

    def host_used(self):
        held = [*self.staged, *(item for batch in self.flying for item in batch["items"])]
        return sum(item[1] for item in held) + (self.copying["item"][1] if self.copying else 0)

    def gpu_used(self):
        growing = len(self.step["items"]) if self.step else 0
        return (
            sum(item[1] + item[3] - 1 for item in self.resident)
            + growing
            + (self.copying["item"][1] if self.copying else 0)
        )

    def run(self):
        for item in self.coming:  # requests of the same instant still come one after the other
            self.waiting.append(item)
            self.start()
        while self.waiting or self.flying or self.staged or self.resident or self.copying:
            for _ in range(6):  # what one event frees may start another at the same instant
                self.finish()
                self.start()
            self.time += self.dt
        return self.time

    def finish(self):
        if self.loading is not None and self.time >= self.loading:
            self.loading = None
        if self.copying and self.time >= self.copying["end"]:
            self.resident.append(self.copying["item"])
            self.copying = None
        while self.flying and self.time >= self.flying[0]["end"]:
            for item in self.flying.pop(0)["items"]:
                item[3] = 1
                (self.staged if item[2] > 1 else self.done).append(item)
        if self.step and self.time >= self.step["end"]:
            for item in self.step["items"]:
                item[3] += 1
                if item[3] == item[2]:
                    self.resident.remove(item)
                    self.done.append(item)
            self.step = None

    def start(self):
        if self.loading is not None:
            return
        if self.phase == "prefill":
            self.start_prefill()
        else:
            self.start_decode()
        if self.loading is None and self.copying is None and self.staged:
            item = self.staged[0]
            if item[1] + 1 + (len(self.resident) if self.gpu_used() else 0) <= self.gpu - self.gpu_used():
                self.staged.pop(0)
                self.copying = {"item": item, "end": self.time + item[1] * self.copy_s}

    def start_prefill(self):
        while self.waiting and len(self.flying) < self.depth:
            items, room, budget = [], self.host - self.host_used(), self.budget
            while self.waiting and self.waiting[0][1] <= room and (not items or self.waiting[0][1] <= budget):
                items.append(self.waiting.pop(0))
                room, budget = room - items[-1][1], budget - items[-1][1]
            if not items:
                break
            seconds = self.stages_s([item[1] for item in items])
            free = self.flying[-1]["leaves"] if self.flying else [0.0] * len(seconds)
            clock, leaves = self.time, []
            for stage, duration in enumerate(seconds):
                clock = max(clock, free[stage]) + duration
                leaves.append(clock)
            self.flying.append({"items": items, "leaves": leaves, "end": clock})
        can_copy = self.staged and self.staged[0][1] + 1 + len(self.resident) <= self.gpu - self.gpu_used()
        if not self.flying and not self.copying and not can_copy and (self.staged or self.resident):
            self.turn("decode")

    def start_decode(self):
        if self.waiting and not self.staged and not self.copying:
            if self.step is None:
                self.turn("prefill")
            return
        if self.step is None and self.resident:
            seconds = self.decode_s([item[1] + item[3] for item in self.resident])
            self.step = {"items": list(self.resident), "end": self.time + seconds}

    def turn(self, phase):
        self.phase, self.turns = phase, self.turns + 1
        self.loading = self.time + self.load_s
