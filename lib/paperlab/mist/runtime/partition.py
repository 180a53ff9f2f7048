"""Where the bytes of one module live: flat weights, gradients and optimizer states, sharded by ZeRO and offloaded.

A module's parameters are views of one flat tensor, and so are their gradients. What a rank owns of each is a range of
that tensor; the last part of the range, by the offload ratio, is host memory. Where a rank does not hold everything on
the device, the module computes in a slot of a `Ring` of two full-size buffers that all blocks of the stage share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paperlab.mist.runtime.groups import RankGroup
from paperlab.mist.runtime.lanes import Ticket
from paperlab.mist.runtime.memory import MemoryLedger


class Partition:
    """The range [start, stop) of a flat tensor, its tail in host memory."""

    def __init__(self, ledger: MemoryLedger, start: int, stop: int, offload: float, dtype: torch.dtype) -> None:
        self.start, self.stop = start, stop
        self.middle = stop - round(offload * (stop - start))
        self.device = ledger.empty(self.middle - start, dtype).zero_()
        self.host = ledger.empty(stop - self.middle, dtype, "host").zero_()

    @property
    def host_bytes(self) -> int:
        """Bytes that a load or a store moves over the host link."""
        return self.host.nbytes

    def load(self, full: Tensor, offset: int = 0) -> None:
        """Copy the range into a flat tensor whose element 0 is element `offset` of the whole."""
        full[self.start - offset : self.middle - offset].copy_(self.device)
        full[self.middle - offset : self.stop - offset].copy_(self.host, non_blocking=True)

    def store(self, full: Tensor) -> None:
        """Copy the range out of the full-size tensor."""
        self.device.copy_(full[self.start : self.middle])
        self.host.copy_(full[self.middle : self.stop], non_blocking=True)


class Ring:
    """Two full-size buffers; module k of a stage computes in slot k mod 2."""

    def __init__(self, ledger: MemoryLedger, numel: int, dtype: torch.dtype) -> None:
        self.slots = [ledger.empty(numel, dtype) for _ in range(2)]
        self.leaving: list[Ticket | None] = [None, None]  # stores that still read a slot

    def ready(self, index: int) -> list[Ticket]:
        """Return what must have happened before slot `index` may be overwritten."""
        ticket = self.leaving[index % 2]
        return [] if ticket is None else [ticket]


class ModuleState:
    """One module of a stage with its partitions; its parameters and their `.grad` are views of `weight` and `grad`.

    zero: ZeRO level; the offload ratios are those of weights, gradients and optimizer states. `rings` are the weights'
    and gradients' ring, or None for modules that stay whole on the device.
    """

    def __init__(
        self,
        module: nn.Module,
        index: int,
        group: RankGroup,
        zero: int,
        offloads: tuple[float, float, float],
        ledger: MemoryLedger,
        rings: tuple[Ring | None, Ring | None],
    ) -> None:
        self.module, self.index, self.zero, self.group = module, index, zero if group.size > 1 else 0, group
        parameters = list(module.parameters())
        self.numel = -(-sum(p.numel() for p in parameters) // group.size) * group.size
        self.dtype = parameters[0].dtype
        self.weight_ring, self.grad_ring = rings
        self.weights = Partition(ledger, *self._owned(3), offloads[0], self.dtype)
        self.grads = Partition(ledger, *self._owned(2), offloads[1], self.dtype)
        self.optimizer = [Partition(ledger, *self._owned(1), offloads[2], torch.float32) for _ in range(3)]
        self.step = torch.zeros((), dtype=torch.float32, device=ledger.device)
        self.weight = self._full(self.weights, self.weight_ring)
        self.grad = self._full(self.grads, self.grad_ring)
        self.pending = False  # gradients of a finished iteration wait for their optimizer step
        self.fresh = True  # no gradient has been accumulated since the last optimizer step
        self.updated = False  # the ring slot holds weights newer than the partition's
        self._adopt(parameters)

    def _owned(self, level: int) -> tuple[int, int]:
        """Return the range of this rank where ZeRO shards from `level` up."""
        if self.zero < level:
            return 0, self.numel
        share = self.numel // self.group.size
        return self.group.rank * share, (self.group.rank + 1) * share

    def _full(self, partition: Partition, ring: Ring | None) -> Tensor:
        return partition.device if ring is None else ring.slots[self.index % 2][: self.numel]

    def _adopt(self, parameters: list[nn.Parameter]) -> None:
        """Move the parameters' values into the partitions and make parameters and gradients views."""
        values = torch.cat([p.detach().flatten() for p in parameters]).to(self.weight.device)
        values = torch.nn.functional.pad(values, (0, self.numel - values.numel()))
        self.weight.copy_(values)
        if self.weight_ring is not None:
            self.weights.store(self.weight)
        master = self.optimizer[0]
        master.device.copy_(values[master.start : master.middle])
        master.host.copy_(values[master.middle : master.stop])
        self.grad.zero_()
        offset = 0
        for parameter in parameters:
            span = slice(offset, offset := offset + parameter.numel())
            # `.data` views have version counters of their own: refilling a ring slot is no in-place change to autograd.
            parameter.data = self.weight.data[span].view(parameter.shape)
            parameter.grad = self.grad.data[span].view(parameter.shape)

    def load_grads(self) -> None:
        """Fill the gradient ring slot so that accumulating and reducing into it gives the new sum."""
        if self.zero >= 2:
            self.grad.zero_()  # other ranks hold the sums of the other slices
        self.grads.load(self.grad)

    def owned_grad(self) -> tuple[Tensor, int]:
        """Return a flat gradient that covers this rank's range, and the element of the whole at which it starts.

        Offloaded gradients have to be loaded first.
        """
        if self.grad_ring is not None and not self.grads.host_bytes:
            return self.grads.device, self.grads.start
        return self.grad, 0

    def gathered_weights(self) -> Tensor:
        """Return the module's whole flat fp32 master weight; a collective call, for checks."""
        return self._gathered(self.optimizer[0])

    def gathered_grads(self) -> Tensor:
        """Return the module's whole flat gradient in fp32, reduced as the optimizer sees it; a collective call."""
        return self._gathered(self.grads)

    def _gathered(self, partition: Partition) -> Tensor:
        full = torch.zeros(self.numel, dtype=torch.float32, device=self.weight.device)
        partition.load(full)
        if self.zero:
            self.group.all_gather(full)
        return full
