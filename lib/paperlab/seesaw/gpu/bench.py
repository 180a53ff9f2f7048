"""Where to measure, and one rank's shard with random weights, without processes. It has not run on a GPU yet."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.seesaw.engine.communicators import NoLinks
from paperlab.seesaw.engine.shard_model import ShardModel
from paperlab.seesaw.engine.weights import parameter_shapes, slices
from paperlab.seesaw.layout import Layout
from paperlab.transformer import ModelShape, preset
from paperlab.transformer.model import Decoder


@dataclass(frozen=True)
class Scope:
    """Sizes of a run.

    overlap_model, overlap_layers: whose prompts of `prompt_tokens` are prefilled while their layers leave.
    reload_bytes: of the weights that are reloaded. copy_blocks: blocks of keys and values in one timed copy.
    replayed: models whose single layers are timed at each of `tps`, for `prefill_tokens` and for `decode_batches` of
    sequences with `context` stored tokens. served: the model of whole runs; requests, and tokens of each.
    """

    overlap_model: ModelShape
    overlap_layers: int
    prompt_tokens: tuple[int, ...]
    batches: int
    reload_bytes: int
    copy_blocks: int
    copy_model: ModelShape
    replayed: tuple[ModelShape, ...]
    tps: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    decode_batches: tuple[int, ...]
    context: int
    served: ModelShape
    requests: int
    request_tokens: tuple[int, int]
    repeats: int

    def __post_init__(self) -> None:
        if not 1 <= self.overlap_layers <= self.overlap_model.layers:
            raise ValueError(
                f"Scope: overlap_layers is {self.overlap_layers}; {self.overlap_model.name} has "
                f"{self.overlap_model.layers}"
            )
        for name in ("batches", "reload_bytes", "copy_blocks", "context", "requests", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"Scope: {name} is {getattr(self, name)}; it must be at least 1")


FULL = Scope(
    overlap_model=preset("codellama-34b"), overlap_layers=12, prompt_tokens=(512, 2048, 4096), batches=4,
    reload_bytes=8 << 30, copy_blocks=64, copy_model=preset("llama2-70b"),
    replayed=(preset("llama2-70b"), preset("codellama-34b"), preset("llama2-13b")), tps=(1, 2, 4, 8),
    prefill_tokens=(256, 512, 1024, 2048, 4096), decode_batches=(1, 8, 32, 64, 128, 256), context=2048,
    served=preset("llama-3.1-8b"), requests=32, request_tokens=(2048, 128), repeats=5,
)  # fmt: skip
_TINY = ModelShape(
    name="tiny", layers=4, hidden=64, heads=8, kv_heads=4, ffn=128, vocab=256, max_positions=512,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip


def smoke() -> Scope:
    """Return the rehearsal: a tiny model, on any machine."""
    return Scope(
        overlap_model=_TINY, overlap_layers=2, prompt_tokens=(32,), batches=2, reload_bytes=1 << 20, copy_blocks=2,
        copy_model=_TINY, replayed=(_TINY,), tps=(1, 2), prefill_tokens=(16, 32), decode_batches=(1, 4), context=32,
        served=_TINY, requests=4, request_tokens=(24, 4), repeats=2,
    )  # fmt: skip


class Bench:
    """The device, and how to time on it."""

    def __init__(self, scope: Scope, device: str) -> None:
        self.scope, self.device = scope, device
        self.on = torch.device(device)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._held: dict[str, Any] = {}

    @property
    def dtype_name(self) -> str:
        """The dtype as in `DeviceSpec.peak_flops_per_s`."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def columns(self) -> dict[str, str]:
        """The columns of every row: evidence, device, dtype."""
        return {**timing.machine(self.device), "dtype": self.dtype_name}

    def seconds(self, action: Callable[[], Any]) -> float:
        """Return the median seconds of an action after two runs to warm up, by events on a GPU."""
        timing.timed(action, 2, self.device)
        return float(np.median(timing.timed(action, self.scope.repeats, self.device)))

    def hold(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returned for `key`, so that cells share it."""
        if key not in self._held:
            self._held[key] = make()
        return self._held[key]

    def leave(self) -> None:
        """Give the device's memory back, before other processes use it."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def graph(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Return what launches `action` at once, as a CUDA graph; elsewhere the action itself."""
        if self.device != "cuda":
            return action
        side = torch.cuda.Stream(self.on)
        side.wait_stream(torch.cuda.current_stream(self.on))
        with torch.cuda.stream(side):  # kernels compile and libraries allocate before the capture
            action()
        torch.cuda.current_stream(self.on).wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            action()
        return captured.replay

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize(self.on)

    def shard_model(self, model: ModelShape, layers: int, layout: Layout) -> ShardModel:
        """Return the first rank's shard of `model` cut to `layers` layers, with random weights and no neighbors."""
        shape = replace(model, layers=max(layers, layout.pp))
        shard = layout.shard(shape, 0)
        with torch.device("meta"):
            shapes = parameter_shapes(Decoder(shape))
        tensors = {
            piece.name: torch.empty(piece.shape, dtype=self.dtype, device=self.on).normal_(0, 0.02)
            for piece in slices(shard, shapes)
        }
        return ShardModel(shard, tensors, NoLinks(layout))

    def table(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """Return rows with the machine's columns."""
        return pd.DataFrame([self.columns | row for row in rows])
