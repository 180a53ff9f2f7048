"""No rank ever holds much more than one shard, and what it needs of the host's copy it has after a load."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperlab.seesaw.engine import ReshardingEngine
from paperlab.seesaw.layout import Layout
from paperlab.transformer.model import Decoder
from tests.seesaw.engine.oracle import NEW_TOKENS, engine, hugging_face, prompts, tiers, tokens
from tests.seesaw.small import TINY

LARGE = replace(TINY, name="large", layers=6, hidden=768, heads=12, kv_heads=4, head_dim=64, ffn=2048, vocab=4096)


def private_bytes(pid):
    """Return the memory that a process alone holds; what it shares does not count."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no RssAnon")


class Watch(threading.Thread):
    """Samples the private memory of processes and keeps the highest."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.base = {pid: private_bytes(pid) for pid in pids}
        self.peak, self.ending = dict(self.base), threading.Event()

    def run(self):
        while not self.ending.is_set():
            for pid in self.peak:
                self.peak[pid] = max(self.peak[pid], private_bytes(pid))
            time.sleep(0.001)

    def growth(self):
        self.ending.set()
        self.join()
        return [self.peak[pid] - self.base[pid] for pid in self.peak]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_a_rank_holds_one_shard_at_all_times(two):
    decoder = Decoder(LARGE).initialize(0).requires_grad_(False)
    shards = [[Layout.parse(name).shard(LARGE, rank).weight_bytes("fp32") for name in ("P2", "T2")] for rank in (0, 1)]
    size = 2 * LARGE.layers * LARGE.kv_width * 4
    with ReshardingEngine(decoder, "P2", "T2", pool=two, prefetch_in_prefill=False, **tiers(2, 8, size)) as made:
        made.generate(prompts((4,)), 2)  # code and buffers that every run needs
        watch = Watch([process.pid for process in two.processes])
        resident = made.trace().counts().peak_weight_bytes.tolist()
        watch.start()
        made.generate(prompts((9, 12, 16)), 2)
        loads = len(made.log.switches)
        growth = watch.growth()
    assert loads >= 3
    assert resident == [max(both) for both in shards]
    for more, both in zip(growth, shards, strict=True):  # one shard was there at the start
        assert more <= 0.15 * min(both)


def test_a_loaded_shard_needs_the_host_no_more(two):
    with engine(two, "T2", "T2", policy="static-prefill-first") as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)
        made._memory.weights.tensor.view(torch.float32).fill_(float("nan"))
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)


def test_a_reload_reads_the_host(two):
    with engine(two, "P2", "T2") as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)
        made._memory.weights.tensor.view(torch.float32).fill_(0.0)
        assert set(sum(tokens(made.generate(prompts(), NEW_TOKENS)), ())) == {0}  # all logits are equal


def test_processes_stay_the_same(two):
    before = [process.pid for process in two.processes]
    with engine(two, "P2", "T2", host_blocks=5) as made:
        made.generate(prompts(), 2)
    assert before == [process.pid for process in two.processes]
