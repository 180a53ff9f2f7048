"""`ReshardingEngine`: a model on processes, in one layout for prefill and another for decode, behind `generate`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from paperlab.seesaw.engine.driver import Driver, Record
from paperlab.seesaw.engine.host_memory import HostMemory
from paperlab.seesaw.engine.messages import Close, Open
from paperlab.seesaw.engine.options import EngineOptions
from paperlab.seesaw.engine.pool import RankError, RankPool
from paperlab.seesaw.engine.session import Setup
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.simulation import build_cluster
from paperlab.serving.engine.completion import Completion, completions
from paperlab.serving.engine.machine import described
from paperlab.serving.engine.memory import block_bytes
from paperlab.serving.engine.prompts import per_prompt, to_ids
from paperlab.serving.engine.resources import Model, load_model
from paperlab.serving.events import EventLog
from paperlab.serving.policy import Policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Stalled
from paperlab.serving.workload import Workload
from paperlab.transformer import ModelShape
from paperlab.transformer.model import Decoder

CPU_KV_BYTES = 64 << 20  # of a replica's devices together, where nothing else is asked for
SHARED_GPU = "none: ranks share a GPU"  # no class of evidence, so such times cannot be recorded
STAGED_BATCHES = 2  # prompt batches whose keys and values may be on their way to the host at once


class ReshardingEngine:
    """Serves batches of prompts, greedily, on TP · PP · DP processes of this machine.

    >>> with ReshardingEngine(shape, prefill="P2", decode="T2", host_kv_bytes=64 << 20) as engine:
    ...     done = engine.generate([[1, 2, 3], [4, 5]], max_new_tokens=8)
    ...     engine.trace().table()

    `log` holds what the serving core recorded of the last run. An engine closes when a rank fails.
    """

    def __init__(
        self,
        model: str | Path | ModelShape | Decoder,
        prefill: str | Layout = "P2",
        decode: str | Layout = "T2",
        *,
        pool: RankPool | None = None,
        **options: Any,
    ) -> None:
        """Start the ranks, unless a `pool` of the right size is given, and lay the model out for them.

        Args:
            model: a Hugging Face folder, a shape or preset's name (random weights), or a decoder on the CPU.
            prefill: layout while prompts run, such as `P4`.
            decode: layout while tokens come out, such as `T4`; with the same DP and number of ranks.
            pool: ranks to use, which stay when the engine closes.
            options: fields of `EngineOptions`.

        Raises:
            ValueError: layouts that differ in ranks or do not split the model, tiers smaller than a block, a bad
                option.
            RankError: a rank did not come up.
        """
        self.options = EngineOptions(**options)
        self.layouts = Layout.parse(prefill), Layout.parse(decode)
        loaded = Model(model) if isinstance(model, Decoder) else self._load(model)
        self.shape, self.stop_tokens, self.tokenizer = loaded.decoder.shape, loaded.stop_tokens, loaded.tokenizer
        self._check(pool)
        self._policy = self.options.make_policy(*self.layouts)
        self.log, self._record, self._loaded = EventLog(), Record(), dict[str, str]()
        self._memory: HostMemory | None = None
        self._owns_pool = pool is None
        self.pool = pool or RankPool(self.layouts[0].ranks, self.options.device, self.options.share_gpu)
        try:
            self._open(loaded.decoder)
        except BaseException:
            self.close()
            raise

    def generate(
        self, prompts: Sequence[str | Sequence[int]], max_new_tokens: int | Sequence[int] = 32
    ) -> list[Completion]:
        """Return the completion of each prompt, in their order.

        Args:
            prompts: texts (the folder needs a tokenizer) or token ids.
            max_new_tokens: for all, or one per prompt.

        Raises:
            ValueError: a prompt without tokens or with a token outside the vocabulary, lists of other lengths. A
                prompt that is too long for the model or a tier is no error: it alone is refused.
            RankError: a rank failed; the engine has closed.
        """
        ids = to_ids(prompts, self.tokenizer, self.shape.vocab)
        lengths = per_prompt("max_new_tokens", max_new_tokens, len(ids))
        if self.options.copies == "none" and max(lengths) > 1:
            raise ValueError("max_new_tokens is above 1; copies='none' keeps no keys and values, so only 1 can come")
        requests = [Request(index, 0.0, len(ids[index]), lengths[index]) for index in range(len(ids))]
        tokens = {index: list(prompt) for index, prompt in enumerate(ids)}
        self._serve(requests, tokens, self.stop_tokens)
        stopped = {
            index for index in tokens if tokens[index][-1] in self.stop_tokens and len(tokens[index]) > len(ids[index])
        }
        return completions(ids, tokens, stopped, self.log, self.tokenizer)

    def serve(self, workload: Workload) -> EventLog:
        """Serve a workload whose requests are all there at once, with random prompts of its lengths; returns the log.

        Outputs have the workload's lengths, whatever tokens come.
        """
        if late := [request for request in workload.requests if request.arrival_s]:
            raise ValueError(f"{workload.name}: request {late[0].request_id} arrives later; give arrivals='at_once'")
        draw = np.random.default_rng(self.options.seed)
        tokens = {
            request.request_id: draw.integers(0, self.shape.vocab, request.prompt_tokens).tolist()
            for request in workload.requests
        }
        self._serve(list(workload.requests), tokens, ())
        return self.log

    def trace(self) -> Trace:
        """Return what the ranks did in the last run."""
        return Trace(self.log, self._record)

    def close(self) -> None:
        """Let go of the model, and end the ranks unless the pool was given; safe to call twice."""
        if self._owns_pool:
            self.pool.close()
        elif self._memory is not None and self.pool.open:
            self.pool.broadcast(Close())
            self.pool.await_all("closed")
        if self._memory is not None:
            self._memory.close()
            self._memory, self.pool.engine = None, None

    def __enter__(self) -> ReshardingEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, model: str | Path | ModelShape) -> Model:
        return load_model(model, self.options.weights_dtype, torch.device("cpu"), self.options.seed)

    def _check(self, pool: RankPool | None) -> None:
        first, second = self.layouts
        if (first.dp, first.ranks) != (second.dp, second.ranks):
            raise ValueError(f"prefill is {first}, decode {second}; DP and the number of ranks must be the same")
        for layout in self.layouts:
            layout.check(self.shape)
        if pool is not None and pool.device != self.options.device:
            raise ValueError(f"device is {self.options.device!r}; the pool's ranks run on {pool.device}")
        if pool is not None and (pool.ranks != first.ranks or pool.engine is not None):
            raise ValueError(
                f"pool has {pool.ranks} ranks, in use: {pool.engine is not None}; {first} needs {first.ranks} idle ones"
            )

    def _open(self, decoder: Decoder) -> None:
        """Lay weights and the host's tier out, let the ranks map them, and agree on the size of the device's tier."""
        options, size = self.options, block_bytes(self.shape, self.options.block_size, self.options.weights_dtype)
        self.host_blocks = self._whole("host_kv_bytes", options.host_kv_bytes, size)
        self.device_blocks = 0
        if options.device_kv_bytes or options.device == "cpu":
            self.device_blocks = self._whole("device_kv_bytes", options.device_kv_bytes or CPU_KV_BYTES, size)
        self._memory = HostMemory(decoder, options.weights_dtype, self.layouts[0].dp, self.host_blocks * size)
        self.pool.engine = self
        self.pool.broadcast(Open(self._setup(self._memory)))
        if not self.device_blocks:
            self.device_blocks = min(self.pool.await_all("fits"))
            if not self.device_blocks:
                raise ValueError(f"{self.shape.name} leaves no room for keys and values as {self.layouts[1]}")
            self.pool.broadcast(self.device_blocks)
        self.pool.await_all("opened")
        self._memory.unlink()

    def _setup(self, memory: HostMemory) -> Setup:
        options = self.options
        return Setup(
            model=self.shape, layouts=tuple(dict.fromkeys(layout.replica for layout in self.layouts)),
            dtype=options.weights_dtype, weights_path=memory.weights.path,
            weights_shapes=memory.shapes,
            kv_paths=tuple((buffer.path, buffer.nbytes) for buffer in memory.tiers), block_size=options.block_size,
            device_blocks=self.device_blocks, staging_tokens=STAGED_BATCHES * options.limits.token_budget,
            copies=options.copies, host_link_Bps=options.host_link_Bps, peer_bus_Bps=options.peer_bus_Bps,
        )  # fmt: skip

    def _whole(self, name: str, nbytes: int, block: int) -> int:
        if nbytes < block:
            raise ValueError(f"{name} is {nbytes}; one block of {self.options.block_size} tokens takes {block} bytes")
        return nbytes // block

    def _serve(self, requests: list[Request], tokens: dict[int, list[int]], stop_tokens: Sequence[int]) -> None:
        """Serve `requests` with a fresh cluster and policy; `tokens` grow."""
        if self._memory is None or not self.pool.open:
            raise RankError("the engine is closed; make a new one")
        policy = copy.deepcopy(self._policy)
        self.log = EventLog(about=self._about(policy))
        cluster = build_cluster(
            policy, self.device_blocks, self.host_blocks, self.options.block_size, self.shape.max_positions, self.log
        )
        ranks = self.layouts[0].replica_ranks
        driver = Driver(policy, cluster, self.pool, ranks, tokens, frozenset(stop_tokens))
        try:
            driver.run(requests, self._loaded)
        except Stalled:
            raise
        except BaseException:  # ranks are in the middle of something that nobody will hear of
            self.pool.close()
            raise
        finally:
            self._record, self._loaded = driver.record, dict(cluster.configurations)

    def _about(self, policy: Policy) -> dict[str, Any]:
        options, (first, second) = self.options, self.layouts
        machine = described(torch.device(options.device), options.weights_dtype)
        if self.pool.shared:
            machine["evidence"] = SHARED_GPU
        emulated = {name: getattr(options, name) for name in ("host_link_Bps", "peer_bus_Bps")}
        return {
            "system": policy.name, "model": self.shape.name, "lanes": tuple(lane.name for lane in policy.lanes),
            "layout": str(first) if first == second else f"{first}→{second}", "ranks": first.ranks,
            "seed": options.seed, "kv_blocks": self.device_blocks, "host_blocks": self.host_blocks,
            "block_size": options.block_size, "copies": options.copies, "shared_gpu": self.pool.shared,
        } | emulated | machine  # fmt: skip
