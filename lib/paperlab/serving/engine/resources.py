"""What an engine holds between runs: the model, and the pools' tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from paperlab.serving.cluster import Lane
from paperlab.serving.engine.checkpoint import load_decoder, open_checkpoint, random_decoder
from paperlab.serving.engine.memory import KvStore, block_bytes
from paperlab.serving.engine.prompts import load_tokenizer
from paperlab.serving.kv import BlockPool
from paperlab.transformer import PRESETS, ModelShape, preset
from paperlab.transformer.model import Decoder

CPU_KV_BYTES = 2**28  # a pool's default size on a CPU
CUDA_KV_SHARE = 0.85  # of the memory that is free once the weights are there; the rest is for activations and graphs


class Model(NamedTuple):
    """A decoder, the tokens that end its texts, and its tokenizer if there is one."""

    decoder: Decoder
    stop_tokens: tuple[int, ...] = ()
    tokenizer: Any | None = None


def compute_device(wanted: str | torch.device | None) -> torch.device:
    """Return the device meant: CUDA's current one where nothing is `wanted` and there is one, else the CPU."""
    device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def load_model(source: str | Path | ModelShape, dtype: torch.dtype, device: torch.device, seed: int) -> Model:
    """Return the model of a checkpoint folder, or random weights for a shape or a preset's name."""
    if isinstance(source, str) and source in PRESETS and not Path(source).exists():
        source = preset(source)
    if isinstance(source, ModelShape):
        return Model(random_decoder(source, dtype, device, seed))
    checkpoint = open_checkpoint(Path(source))
    decoder = load_decoder(checkpoint, dtype, device)
    return Model(decoder, checkpoint.stop_tokens, load_tokenizer(checkpoint.folder))


def reserve(
    lanes: Iterable[Lane],
    shape: ModelShape,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_blocks: int | None = None,
    host_blocks: int | None = None,
) -> dict[str, KvStore]:
    """Return the tensors of the pools that `lanes` work on, by pool name; all device pools lie on `device`.

    Raises:
        ValueError: blocks or block_size below 1.
    """
    lanes = list(lanes)
    names = sorted({lane.resource for lane in lanes if lane.kind == "compute"})
    if kv_blocks is None:
        size = block_bytes(shape, max(1, block_size), dtype)
        free = (
            torch.cuda.mem_get_info(device)[0] * CUDA_KV_SHARE / len(names) if device.type == "cuda" else CPU_KV_BYTES
        )
        kv_blocks = max(1, int(free) // size)
    wanted = dict.fromkeys(names, (kv_blocks, device))
    if any(lane.resource == "host" for lane in lanes):
        wanted["host"] = (kv_blocks if host_blocks is None else host_blocks, torch.device("cpu"))
    for name, (blocks, _) in wanted.items():
        BlockPool(name, blocks, block_size)  # refuses sizes below 1
    stores = {name: KvStore(shape, blocks, block_size, dtype, place) for name, (blocks, place) in wanted.items()}
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # lanes issue on streams of their own, which wait for no zeros or weights
    return stores
