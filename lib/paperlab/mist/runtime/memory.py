"""Memory accounting at the level of storages, in a device pool and a host pool (never the process's resident size).

A dispatch mode sees every tensor that an operator returns on the compute thread; buffers that copy threads use are
allocated through the ledger. A finalizer on each storage tells when it dies. The ledger counts what a caching
allocator would hand out, less what kernels and communication libraries allocate for themselves.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Pool = Literal["device", "host"]
POOLS: tuple[Pool, ...] = ("device", "host")


@dataclass(frozen=True)
class Peak:
    """The largest number of live bytes of a pool within a phase, and what the rank was doing then."""

    bytes: int
    where: str


class MemoryLedger:
    """Live bytes of both pools, with the peak of each phase; safe to use from copy threads.

    `device` is the compute device. On the CPU both pools are the same memory, and only what is allocated with
    `pool="host"` belongs to the host pool; on CUDA the tensor's device decides.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.live: dict[Pool, int] = dict.fromkeys(POOLS, 0)
        self.peaks: dict[tuple[Pool, str], Peak] = {}
        self._storages: dict[int, tuple[Pool, int]] = {}
        self._lock = threading.RLock()  # a finalizer may run while this very thread is inside
        self._phase, self._where = "setup", ""

    def at(self, phase: str, where: str = "") -> None:
        """From now on, peaks belong to `phase` and are located at `where`."""
        with self._lock:
            self._phase, self._where = phase, where
            self._note("")

    def empty(self, numel: int, dtype: torch.dtype, pool: Pool = "device") -> Tensor:
        """Allocate a flat tensor in a pool; host memory is pinned when the device is a GPU."""
        if pool == "host" and self.device.type == "cuda":
            tensor = torch.empty(numel, dtype=dtype, pin_memory=True)
            self.track(tensor, pool)
            return tensor
        # A bare storage: the dispatch mode must not see it first and take it for the device's.
        storage = torch.UntypedStorage(numel * dtype.itemsize, device=self.device)
        self._track(storage, pool, "allocation")
        return torch.empty(0, dtype=dtype, device=self.device).set_(storage, 0, (numel,))  # type: ignore[call-overload]

    def track(self, tensor: Tensor, pool: Pool = "device", operator: str = "") -> None:
        """Count the storage of `tensor` in `pool` until it dies, unless it is counted already."""
        self._track(tensor.untyped_storage(), pool, operator)

    def _track(self, storage: torch.UntypedStorage, pool: Pool, operator: str) -> None:
        key = storage._cdata
        with self._lock:
            if key in self._storages:
                return
            self._storages[key] = (pool, storage.nbytes())
            weakref.finalize(storage, self._died, key).atexit = False
            self._grow(pool, storage.nbytes(), operator)

    def resize(self, tensor: Tensor, nbytes: int) -> None:
        """Give the storage of `tensor` another size: 0 frees its memory and leaves every view of it in place."""
        storage = tensor.untyped_storage()
        with self._lock:
            storage.resize_(nbytes)
            if storage._cdata in self._storages:  # made by an operator while nothing is accounted, otherwise
                pool, before = self._storages[storage._cdata]
                self._storages[storage._cdata] = (pool, nbytes)
                self._grow(pool, nbytes - before, "resize")

    def peak(self, pool: Pool = "device", phase: str | None = None) -> Peak:
        """Return the highest peak of a pool, over all phases or within one; zero where the phase never ran."""
        with self._lock:
            found = [peak for (p, name), peak in self.peaks.items() if p == pool and phase in (None, name)]
        return max(found, key=lambda peak: peak.bytes, default=Peak(0, ""))

    def reset_peaks(self) -> None:
        """Forget all peaks; what is live stays counted."""
        with self._lock:
            self.peaks.clear()
            self._note("")

    def _grow(self, pool: Pool, nbytes: int, operator: str) -> None:
        self.live[pool] += nbytes
        self._note(operator)

    def _note(self, operator: str) -> None:
        for pool in POOLS:
            known = self.peaks.get((pool, self._phase))
            if known is None or self.live[pool] > known.bytes:
                where = f"{self._where} {operator}".strip()
                self.peaks[pool, self._phase] = Peak(self.live[pool], where)

    def _died(self, key: int) -> None:
        with self._lock:
            pool, nbytes = self._storages.pop(key)
            self.live[pool] -= nbytes


class LiveTensors(TorchDispatchMode):
    """Counts every storage that an operator makes on this thread in a ledger's device pool."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == self.ledger.device.type:
                self.ledger.track(leaf, operator=func.overloadpacket.__name__)
        return result
