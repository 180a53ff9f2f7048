"""How bytes cross between a rank's device and the host: plain copies on a CPU, side streams and pinned memory on CUDA.

A transfer out has two parts: what the issuing thread starts, and what the copying thread waits for (§5.2). On a GPU the
first packs and sends to pinned memory on a side stream, the second waits for that stream and returns the pinned slab,
which the host then copies on to the shared store. The CUDA part has not run on a GPU yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from paperlab.seesaw.engine.tiers import block_slots, pack, tokens_of, unpack
from paperlab.serving.engine.memory import KvStore


class Transfers(Protocol):
    """Copies between paged device memory and slabs on the host; see `tiers` for the shapes."""

    def rows_out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Start to bring what the caller has just computed to the host; the result waits for its slab, M L 2 G S D."""

    def blocks_out(self, store: KvStore, blocks: list[int]) -> Tensor:
        """Return the slab of a store's blocks, on the host; nobody may be writing them."""

    def blocks_in(self, part_BL2GSD: Tensor, host_blocks: list[int], store: KvStore, blocks: list[int]) -> None:
        """Bring blocks of a host store's part to a store's blocks, and wait until they are there."""


class CpuTransfers:
    """Device and host are the same memory; packing takes place in the copying thread."""

    def rows_out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Return what packs the tokens."""
        return partial(pack, keys_LTGD, values_LTGD, slots_MS)

    def blocks_out(self, store: KvStore, blocks: list[int]) -> Tensor:
        """Pack the blocks."""
        return pack(*tokens_of(store), block_slots(blocks, store.block_size, store.device))

    def blocks_in(self, part_BL2GSD: Tensor, host_blocks: list[int], store: KvStore, blocks: list[int]) -> None:
        """Unpack the blocks."""
        slots = block_slots(blocks, store.block_size, store.device)
        unpack(part_BL2GSD[torch.tensor(host_blocks)], *tokens_of(store), slots)


class CudaTransfers:
    """One side stream per direction; pinned slabs come from torch's caching host allocator.

    Whole blocks are never touched by a computation under way, so their copies wait for none: everything that they need
    is made on the side stream itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._out, self._in = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def rows_out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Pack and send to pinned memory behind what the current stream holds by now; return what waits for it."""
        self._out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._out):
            host, arrived = self._to_pinned(pack(keys_LTGD, values_LTGD, slots_MS))
        for tensor in (keys_LTGD, values_LTGD, slots_MS):
            tensor.record_stream(self._out)  # or their memory might be handed on while this stream still reads it

        def wait() -> Tensor:
            arrived.synchronize()
            return host

        return wait

    def blocks_out(self, store: KvStore, blocks: list[int]) -> Tensor:
        """Pack, send to pinned memory, and wait."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._out):
            slots = block_slots(blocks, store.block_size, self.device)
            host, arrived = self._to_pinned(pack(*tokens_of(store), slots))
            arrived.synchronize()
        return host

    def blocks_in(self, part_BL2GSD: Tensor, host_blocks: list[int], store: KvStore, blocks: list[int]) -> None:
        """Gather into pinned memory, send, unpack, and wait."""
        host = torch.empty((len(host_blocks), *part_BL2GSD.shape[1:]), dtype=part_BL2GSD.dtype, pin_memory=True)
        torch.index_select(part_BL2GSD, 0, torch.tensor(host_blocks), out=host)
        with torch.cuda.device(self.device), torch.cuda.stream(self._in):
            slots = block_slots(blocks, store.block_size, self.device)
            unpack(host.to(self.device, non_blocking=True), *tokens_of(store), slots)
            self._in.synchronize()

    @staticmethod
    def _to_pinned(packed: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return host, arrived


def transfers(device: torch.device) -> Transfers:
    """Return the transfers of a device."""
    return CudaTransfers(device) if device.type == "cuda" else CpuTransfers()


class EmulatedLink:
    """One direction of a rank's link to the host, made as slow as `bandwidth_Bps`; None leaves it as it is.

    Copies of several threads share it, one after the other.
    """

    def __init__(self, bandwidth_Bps: float | None = None) -> None:
        self.bandwidth_Bps, self._free_s, self._lock = bandwidth_Bps, 0.0, threading.Lock()

    def pay(self, nbytes: int, begin_s: float) -> None:
        """Sleep until a copy of `nbytes` that began at `begin_s` would be through."""
        if not self.bandwidth_Bps:
            return
        with self._lock:
            end_s = self._free_s = max(begin_s, self._free_s) + nbytes / self.bandwidth_Bps
        time.sleep(max(0.0, end_s - time.perf_counter()))
