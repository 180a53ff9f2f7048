"""What surrounds a CUDA graph, with a stand-in that replays by running the same forward pass over the same tensors."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from paperlab.serving import LLM, Limits, make_policy
from paperlab.serving.engine import graphs
from paperlab.serving.engine.runner import Runner
from tests.serving.engine import tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there the real ones run (test_gpu.py)")
LENGTHS, OUTPUTS = (3, 8, 1, 10, 5), (6, 3, 5, 4, 6)


class Graph:
    """Remembers what was run while it was captured; like the real one, it keeps no tensor alive but its output."""

    recorded: tuple

    def replay(self):
        forward, ids, positions, attend, logits = self.recorded
        assert attend() is not None, "the graph's tensors are gone"
        logits.copy_(forward(ids(), positions(), attend()))


@pytest.fixture
def capturing(monkeypatch):
    """Replace CUDA's graphs and streams; returns the list of captured graphs and the current stream."""
    stream = SimpleNamespace(cuda_stream=1, synchronize=lambda: None)
    made, current = [], []

    @contextmanager
    def graph(target, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        current.append(target)
        yield
        current.pop()
        gc.collect()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Graph()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph", graph)
    original = Runner._forward

    def forward(self, ids, positions, attend, rows=None):
        logits = original(self, ids, positions, attend, rows)
        if current:
            parts = (weakref.ref(ids), weakref.ref(positions), weakref.ref(attend), logits)
            current[-1].recorded = (lambda *args: original(self, *args), *parts)
        return logits

    monkeypatch.setattr(Runner, "_forward", forward)
    return made, stream


def engine(folder, **options):
    llm = LLM(
        folder, make_policy("vllm-like", limits=Limits(16, 5)), block_size=7, kv_blocks=40, device="cpu", **options
    )
    llm._runner = Runner(llm._runner.decoder, backend="triton", graphs=True)
    return llm


def test_padded_graphs_give_the_tokens_of_hugging_face(folders, capturing):
    made, _ = capturing
    llm = engine(folders["llama"], dtype=torch.float32)
    answers = llm.generate(tiny.prompts(LENGTHS), OUTPUTS)
    assert [list(item.tokens) for item in answers] == tiny.expected("llama", LENGTHS, OUTPUTS)
    sizes = {step.shape.decode_tokens for step in llm.log.steps if step.shape.kind == "decode"}
    assert sizes - set(graphs.BUCKETS), "no batch was padded"
    captured = len(made)
    assert 0 < captured <= sum(bucket <= 8 for bucket in graphs.BUCKETS)
    llm.generate(tiny.prompts(LENGTHS), OUTPUTS)
    assert len(made) == captured


def test_every_stream_and_so_every_layout_has_graphs_of_its_own(folders, capturing):
    made, stream = capturing
    llm = engine(folders["llama"], dtype=torch.float32)
    for _ in range(2):
        llm.generate([[1, 2]], 3)
    captured = len(made)
    stream.cuda_stream = 2
    llm.generate([[1, 2]], 3)
    assert len(made) == 2 * captured
