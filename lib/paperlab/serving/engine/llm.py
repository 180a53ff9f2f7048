"""`LLM`: a model, its pools of keys and values, and a policy, behind `generate`, `stream` and `serve`."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paperlab.serving.cluster import Cluster
from paperlab.serving.deployment import Deployment
from paperlab.serving.engine.completion import Completion, Detokenizer, Piece, completions
from paperlab.serving.engine.executor import Executor, OnToken
from paperlab.serving.engine.machine import alarm, described, this_deployment
from paperlab.serving.engine.prompts import per_prompt, to_ids
from paperlab.serving.engine.resources import compute_device, load_model, reserve
from paperlab.serving.engine.runner import Runner
from paperlab.serving.engine.sampling import Sampler, Sampling
from paperlab.serving.engine.streams import CpuStreams, CudaStreams, Sharing, Streams
from paperlab.serving.events import EventLog
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import Policy, make_policy
from paperlab.serving.request import Request
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape


class LLM:
    """A model served by a policy on this machine.

    `log` holds what happened in the last run and `policy` the policy object that ran it; each run starts with an
    empty cluster and a fresh copy of the policy. One run at a time.
    """

    def __init__(
        self,
        model: str | Path | ModelShape,
        policy: str | Policy = "nexus",
        *,
        block_size: int = 16,
        kv_blocks: int | None = None,
        host_blocks: int | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        seed: int = 0,
        deployment: Deployment | None = None,
        sharing: Sharing = "green",
    ) -> None:
        """Load the model and reserve its pools.

        Args:
            model: a Hugging Face folder (config.json and safetensors), or a shape or preset's name for random weights.
            policy: a name such as `nexus` or `vllm-like`, or a policy of your own.
            block_size: tokens per block.
            kv_blocks: blocks of each device pool; default 256 MiB on a CPU, 85 % of the free memory on a GPU.
            host_blocks: blocks of the pool for swapped sequences; default as many.
            dtype: of weights and cache; default float32 on a CPU, bfloat16 on a GPU.
            device: default CUDA where there is one.
            seed: of random weights, random prompts and of requests that bring no seed of their own.
            deployment: what the policy is told of the machine; default: found out, or measured on a CPU.
            sharing: how lanes share a GPU: a real partition by green contexts, or `unpartitioned`, which the log's
                `partition` then says. Lanes on a CPU are never partitioned, and the log says so too.

        Raises:
            ValueError: a bad checkpoint, an unknown name, a size below 1, a policy with links of its own.
            PartitionError: lanes share a GPU that cannot be divided.
        """
        self.device = compute_device(device)
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.seed, self.block_size = seed, block_size
        self._use(policy)
        decoder, self.stop_tokens, self.tokenizer = load_model(model, self.dtype, self.device, seed)
        self.shape, self._runner, self._deployment = decoder.shape, Runner(decoder), deployment
        self._stores = reserve(
            self.policy.lanes, self.shape, block_size, self.dtype, self.device, kv_blocks, host_blocks
        )
        self._sharing = sharing
        self._streams = self._make_streams()
        self._busy = threading.Lock()
        self.log = EventLog()

    def with_policy(self, policy: str | Policy) -> LLM:
        """Return an engine for another policy on this one's weights, pools and graphs; of both, one runs at a time."""
        other = copy.copy(self)
        other._use(policy)
        other._streams = other._make_streams()
        return other

    def warm_up(self, lane: str, share: float = 1.0, sequences: int = 64) -> None:
        """Capture what `lane` needs to decode up to `sequences` at `share`, so that no request waits for it."""
        resource = next(known.resource for known in self.policy.lanes if known.name == lane)
        with self._exclusive(), self._streams.on(lane, share):
            self._runner.warm_up(self._stores[resource], sequences)

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int | Sequence[int] = 32,
        sampling: Sampling | Sequence[Sampling] | None = None,
        arrival_s: Sequence[float] | None = None,
    ) -> list[Completion]:
        """Return the completion of each prompt, in their order.

        Args:
            prompts: texts (the folder needs a tokenizer) or token ids.
            max_new_tokens: for all, or one per prompt.
            sampling: for all, or one per prompt; default greedy.
            arrival_s: when each prompt arrives, from the start of the call; default all at once.

        Raises:
            ValueError: a prompt without tokens or with a token outside the vocabulary, lists of other lengths. A
                prompt that is too long for the model or the pool is no error: it alone is refused.
        """
        ids, requests, samplers = self._plan(prompts, max_new_tokens, sampling, arrival_s)
        tokens = {index: list(prompt) for index, prompt in enumerate(ids)}
        with self._exclusive():
            self._executor(tokens, samplers).run(requests)
        stopped = {index for index, sampler in samplers.items() if tokens[index][-1] in sampler.stop_tokens}
        return completions(ids, tokens, stopped, self.log, self.tokenizer)

    def stream(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int | Sequence[int] = 32,
        sampling: Sampling | Sequence[Sampling] | None = None,
    ) -> Iterator[Piece]:
        """Yield every token when it comes out, of all prompts as they come; arguments and errors as in `generate`.

        Closing the iterator ends the run. `log` tells of refused prompts, which yield nothing.
        """
        ids, requests, samplers = self._plan(prompts, max_new_tokens, sampling, None)
        return self._stream({index: list(prompt) for index, prompt in enumerate(ids)}, requests, samplers)

    def serve(self, workload: Workload, limit_s: float | None = None) -> EventLog:
        """Serve a workload in real time and return the log: random prompts of its lengths, outputs forced to theirs.

        After `limit_s` nothing more is started; the log tells of what is left as unfinished.
        """
        draw = np.random.default_rng(self.seed)
        shape, forced = self.shape, Sampling(stop_tokens=())
        tokens, samplers = {}, {}
        for request in workload.requests:
            tokens[request.request_id] = draw.integers(0, shape.vocab, request.prompt_tokens).tolist()
            samplers[request.request_id] = Sampler(forced, 0)
        about = {"workload": workload.name, "rate_per_s": workload.rate_per_s, "seed": workload.seed}
        with self._exclusive():
            executor = self._executor(tokens, samplers, about=about)
            with alarm(limit_s, executor.stop):
                return executor.run(workload.requests)

    def _use(self, policy: str | Policy) -> None:
        self.policy = make_policy(policy) if isinstance(policy, str) else policy
        self.policy.refuse_own_links()
        self._unused_policy = copy.deepcopy(self.policy)

    def _make_streams(self) -> Streams:
        if self.device.type == "cuda":
            return CudaStreams(self.policy.lanes, self.device, self._sharing)
        return CpuStreams(self.policy.lanes)

    def _plan(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_new_tokens: int | Sequence[int],
        sampling: Sampling | Sequence[Sampling] | None,
        arrival_s: Sequence[float] | None,
    ) -> tuple[list[list[int]], list[Request], dict[int, Sampler]]:
        ids = to_ids(prompts, self.tokenizer, self.shape.vocab)
        lengths = per_prompt("max_new_tokens", max_new_tokens, len(ids))
        wishes = per_prompt("sampling", sampling or Sampling(), len(ids))
        arrivals = per_prompt("arrival_s", 0.0 if arrival_s is None else arrival_s, len(ids))
        requests = [Request(i, float(arrivals[i]), len(ids[i]), lengths[i]) for i in range(len(ids))]
        samplers = {}
        for index, wish in enumerate(wishes):
            seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])
            samplers[index] = Sampler(wish, seed, self.stop_tokens)
        return ids, requests, samplers

    def _executor(
        self,
        tokens: dict[int, list[int]],
        samplers: Mapping[int, Sampler],
        on_token: OnToken | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Executor:
        """Return an executor with an empty cluster, and make its log and policy this object's."""
        self.policy = copy.deepcopy(self._unused_policy)
        if type(self.policy).bind is not Policy.bind:  # measuring the machine takes a moment
            self.policy.bind(self._deployment or self._found_deployment())
        self.log = EventLog(about=self._about() | dict(about or {}))
        pools = [BlockPool(name, store.scratch, self.block_size) for name, store in self._stores.items()]
        cluster = Cluster(self.policy.lanes, pools, self.shape.max_positions, self.log)
        return Executor(self.policy, cluster, self._runner, self._stores, self._streams, tokens, samplers, on_token)

    def _stream(
        self, tokens: dict[int, list[int]], requests: list[Request], samplers: dict[int, Sampler]
    ) -> Iterator[Piece]:
        arrived: queue.SimpleQueue[tuple[int, int] | BaseException | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                executor.run(requests)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        with self._exclusive():
            executor = self._executor(tokens, samplers, lambda index, token: arrived.put((index, token)))
            worker, text = threading.Thread(target=run, name="engine"), Detokenizer(self.tokenizer)
            worker.start()
            try:
                while (item := arrived.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield text.piece(*item)
            finally:
                executor.stop()
                worker.join()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("LLM: a run is under way; its blocks are in use until it has ended or is closed")
        try:
            yield
        finally:
            self._busy.release()

    def _found_deployment(self) -> Deployment:
        blocks = next(iter(self._stores.values())).scratch
        return this_deployment(self.shape, self.policy.limits, self.block_size, blocks, self.dtype, self.device)

    def _about(self) -> dict[str, Any]:
        return {
            "system": self.policy.name,
            "model": self.shape.name,
            "lanes": {lane.name: lane.resource for lane in self.policy.lanes},
            "tp": 1,
            "seed": self.seed,
            "kv_blocks": next(iter(self._stores.values())).scratch,
            "block_size": self.block_size,
            "partition": self._streams.partition,
        } | described(self.device, self.dtype)
