"""What one module keeps of one micro-batch between forward and backward, and how a fraction of it leaves the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, saved_tensors_hooks

from paperlab.mist.runtime.memory import MemoryLedger


class SavedActivations:
    """The distinct storages that backward needs, parameters left out.

    Offloading moves a fraction of their bytes to host memory: whole storages, the largest first, and of the last one
    its tail, so that the fraction is met to the element. A moved storage shrinks to nothing in place; restoring fills
    it again, and every view that autograd holds is valid as before.
    """

    def __init__(self, ledger: MemoryLedger, excluded: set[int]) -> None:
        self.ledger, self._excluded = ledger, excluded
        self._flat: dict[int, Tensor] = {}  # one flat view per storage
        self._moves: list[_Move] = []

    def keep(self, tensor: Tensor) -> None:
        """Remember the storage of `tensor`."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._excluded and storage._cdata not in self._flat:
            elements = storage.nbytes() // tensor.element_size()
            self._flat[storage._cdata] = tensor.detach().as_strided((elements,), (1,), 0)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember everything that autograd saves within the body."""

        def pack(tensor: Tensor) -> Tensor:
            self.keep(tensor)
            return tensor.detach()  # a node must not hold its own output with its graph

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield

    @property
    def nbytes(self) -> int:
        """Bytes of all storages together."""
        return sum(flat.nbytes for flat in self._flat.values())

    @property
    def moved_bytes(self) -> int:
        """Bytes that are in host memory, or on the way there or back."""
        return sum(move.host.nbytes for move in self._moves)

    def plan_offload(self, ratio: float) -> None:
        """Choose what leaves and allocate its host memory."""
        left = round(ratio * self.nbytes)
        for flat in sorted(self._flat.values(), key=lambda flat: -flat.nbytes):
            moved = min(left // flat.element_size(), flat.numel())
            left -= moved * flat.element_size()
            if moved:
                self._moves.append(_Move(flat, flat.numel() - moved, self.ledger))

    def copy_out(self) -> None:
        """Copy what leaves to host memory; for a copy lane."""
        for move in self._moves:
            move.copy_out()

    def release(self) -> None:
        """Free the device memory of what has left; for the compute thread, after `copy_out` is done."""
        for move in self._moves:
            self.ledger.resize(move.flat, 0)

    def reserve(self) -> None:
        """Allocate device memory for what comes back; for the compute thread, before `copy_in`."""
        for move in self._moves:
            self.ledger.resize(move.flat, move.nbytes)

    def copy_in(self) -> None:
        """Copy everything back; for a copy lane."""
        for move in self._moves:
            move.copy_in()

    def arrived(self) -> None:
        """After `copy_in`: let go of the host memory, and of the storages, which belong to autograd alone now."""
        self._moves, self._flat = [], {}


@dataclass
class _Move:
    """One storage on its way: the first `kept` elements wait in a smaller device buffer, the others on the host."""

    flat: Tensor
    kept: int
    ledger: MemoryLedger
    host: Tensor = field(init=False)
    device: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = self.flat.nbytes
        self.host = self.ledger.empty(self.flat.numel() - self.kept, self.flat.dtype, "host")
        self.device = self.ledger.empty(self.kept, self.flat.dtype)

    def copy_out(self) -> None:
        self.host.copy_(self.flat[self.kept :], non_blocking=True)
        self.device.copy_(self.flat[: self.kept])
        _used_on_this_stream(self.flat)

    def copy_in(self) -> None:
        self.flat[self.kept :].copy_(self.host, non_blocking=True)
        self.flat[: self.kept].copy_(self.device)
        _used_on_this_stream(self.flat, self.device)


def _used_on_this_stream(*tensors: Tensor) -> None:
    """Keep CUDA's allocator from handing memory on while a copy stream still works with it."""
    for tensor in tensors:
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream())


@dataclass
class Record:
    """One module's forward pass of one micro-batch, as backward needs it.

    inputs: the module's arguments, the first of which gets a gradient if it is a floating-point tensor.
    output: where backward starts; None for a checkpointed module, which runs forward again first.
    """

    inputs: tuple[Tensor, ...]
    output: GradientEdge | None
    saved: SavedActivations


def storage_keys(tensors: Iterable[Tensor]) -> set[int]:
    """Return the identities of the tensors' storages."""
    return {tensor.untyped_storage()._cdata for tensor in tensors}
