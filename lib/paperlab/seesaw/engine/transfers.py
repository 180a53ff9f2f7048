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

from paperlab.seesaw.engine.tiers import pack, unpack


class Transfers(Protocol):
    """Copies between paged device memory and slabs on the host; see `tiers` for the shapes."""

    def out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Start to bring tokens to the host; the result waits for their slab, M L 2 G S D."""

    def into(self, part_BL2GSD: Tensor, blocks: list[int], keys: Tensor, values: Tensor, slots_MS: Tensor) -> None:
        """Bring `blocks` of a host store's part to `slots_MS` of the device, and wait until they are there."""


class CpuTransfers:
    """Device and host are the same memory; packing takes place in the copying thread."""

    def out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Return what packs the tokens."""
        return partial(pack, keys_LTGD, values_LTGD, slots_MS)

    def into(self, part_BL2GSD: Tensor, blocks: list[int], keys: Tensor, values: Tensor, slots_MS: Tensor) -> None:
        """Unpack the blocks."""
        unpack(part_BL2GSD[torch.tensor(blocks)], keys, values, slots_MS)


class CudaTransfers:
    """One side stream per direction; pinned slabs come from torch's caching host allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._out, self._in = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def out(self, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Callable[[], Tensor]:
        """Pack and send to pinned memory behind what the current stream holds; return what waits for it."""
        self._out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._out):
            packed = pack(keys_LTGD, values_LTGD, slots_MS)
            host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            host.copy_(packed, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        for tensor in (keys_LTGD, values_LTGD, slots_MS):
            tensor.record_stream(self._out)  # or their memory might be handed on while this stream still reads it

        def wait() -> Tensor:
            arrived.synchronize()
            return host

        return wait

    def into(self, part_BL2GSD: Tensor, blocks: list[int], keys: Tensor, values: Tensor, slots_MS: Tensor) -> None:
        """Gather into pinned memory, send, unpack, and wait."""
        host = torch.empty((len(blocks), *part_BL2GSD.shape[1:]), dtype=part_BL2GSD.dtype, pin_memory=True)
        torch.index_select(part_BL2GSD, 0, torch.tensor(blocks), out=host)
        self._in.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self._in):
            unpack(host.to(self.device, non_blocking=True), keys, values, slots_MS)
            slots_MS.record_stream(self._in)
            self._in.synchronize()


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
