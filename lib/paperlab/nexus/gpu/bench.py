"""Models on the device, batches made up to size, and their times. It has not run on a GPU yet."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.nexus.gpu.scope import Scope
from paperlab.serving.engine.batch import FlatBatch, flatten
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.engine.resources import compute_device, load_model
from paperlab.serving.engine.runner import Runner
from paperlab.serving.request import Request
from paperlab.serving.request import Sequence as Served
from paperlab.serving.work import Chunk, StepShape, step_shape
from paperlab.transformer.model import Decoder

BLOCK = 16
ROOMY_BYTES = 120e9  # a device with so much memory holds several models with their pools


class Batch(NamedTuple):
    """One iteration's batch: chunks with the tokens of their requests, and the same laid out."""

    chunks: list[Chunk]
    tokens: dict[int, list[int]]
    flat: FlatBatch
    shape: StepShape


class Rig(NamedTuple):
    """A decoder with random weights, a runner, and keys and values that are random too: zeros run faster."""

    decoder: Decoder
    runner: Runner
    store: KvStore


class Bench:
    """Where to measure; holds what is loaded, so that cells share it. `read` returns the table of another stage."""

    def __init__(self, scope: Scope, device: str, read: Callable[[str], pd.DataFrame]) -> None:
        self.scope, self.device, self.read = scope, device, read
        self.on = compute_device(device)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._held: dict[str, Any] = {}
        self._stream = torch.cuda.Stream(self.on) if device == "cuda" else None

    @property
    def dtype_name(self) -> str:
        """The dtype as in `DeviceSpec.peak_flops_per_s`."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def columns(self) -> dict[str, str]:
        """The columns of every row: evidence, device, dtype."""
        return {**timing.machine(self.device), "dtype": self.dtype_name}

    def hold(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returned for `key`; on a small device whatever else was held is dropped first."""
        if key not in self._held:
            if self.device == "cuda" and torch.cuda.get_device_properties(self.on).total_memory < ROOMY_BYTES:
                self._held.clear()
                gc.collect()
                torch.cuda.empty_cache()
            self._held[key] = make()
        return self._held[key]

    def run(self, measure: Callable[..., pd.DataFrame], *args: Any) -> pd.DataFrame:
        """Return `measure(self, *args)`, issued on a stream of its own: the default one cannot capture graphs."""
        if self.device != "cuda":
            return measure(self, *args)
        with torch.cuda.device(self.on), torch.cuda.stream(self._stream):
            return measure(self, *args)

    def rig(self) -> Rig:
        """Return the model of the single iterations, with room for the largest batch."""
        return self.hold("iterations", self._make_rig)

    def _make_rig(self) -> Rig:
        scope = self.scope
        decode = max(*scope.decode_batches, scope.motivation_batch) * (scope.decode_context + BLOCK)
        tokens = decode + max(scope.stored) + 2 * scope.token_budget
        decoder = load_model(scope.model, self.dtype, self.on, seed=0).decoder
        store = KvStore(scope.model, -(-tokens // BLOCK), BLOCK, self.dtype, self.on)
        for half in (store.keys, store.values):
            half.normal_()
        return Rig(decoder, Runner(decoder), store)

    def batch(self, rig: Rig, sizes: Sequence[tuple[int, int]], first: int = 0) -> Batch:
        """Return a batch of chunks (stored tokens, new tokens) on scattered blocks; one new token means decoding.

        `first` numbers the batches that are in use at the same time: their blocks do not overlap.
        """
        draw = np.random.default_rng(0)
        free = draw.permutation(rig.store.scratch).tolist()
        free = free[::-1] if first else free
        chunks, tokens = [], {}
        for index, (stored, new) in enumerate(sizes):
            decoding = new == 1
            blocks = [free.pop() for _ in range(-(-(stored + new) // BLOCK))]
            request = Request(index, 0.0, max(1, stored + new - decoding), 8)
            chunks.append(Chunk(Served(request, stored, int(decoding), blocks=blocks), new))
            tokens[index] = draw.integers(0, rig.decoder.shape.vocab, stored + new).tolist()
        return Batch(chunks, tokens, flatten(chunks, tokens, rig.store), step_shape(chunks))

    def decode_batch(self, rig: Rig, sequences: int, first: int = 0) -> Batch:
        """Return `sequences` that decode one token each."""
        return self.batch(rig, [(self.scope.decode_context, 1)] * sequences, first)

    def prefill_batch(self, rig: Rig, stored: int) -> Batch:
        """Return one chunk of the whole token budget, after `stored` tokens of its prompt."""
        return self.batch(rig, [(stored, self.scope.token_budget)])

    def mixed_batch(self, rig: Rig) -> Batch:
        """Return the motivation batch's decodes and a chunk that fills the budget."""
        scope = self.scope
        decodes = [(scope.decode_context, 1)] * scope.motivation_batch
        return self.batch(rig, [*decodes, (scope.token_budget, scope.token_budget - scope.motivation_batch)])

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def on_stream(self, stream: Any | None) -> AbstractContextManager[Any]:
        """Return a context in which work is issued on `stream`; None: where it is issued now."""
        return nullcontext() if stream is None else torch.cuda.stream(stream)

    def device_s(self, action: Callable[[], Any]) -> list[float]:
        """Return times of `action` by events on the current stream, issued back to back; warmed up."""
        for _ in range(2):
            action()
        self.synchronize()
        return timing.timed(action, self.scope.repeats, self.device)

    def iteration_s(self, runner: Runner, rig: Rig, batch: Batch) -> float:
        """Return the median wall-clock seconds of whole iterations: laying out, launching, and waiting."""
        times = []
        for _ in range(self.scope.repeats + 2):
            begin_s = time.perf_counter()
            runner.run(batch.chunks, batch.tokens, rig.store)
            self.synchronize()
            times.append(time.perf_counter() - begin_s)
        return float(np.median(times[2:]))
