"""Adam on one module's partition: the step that §2.3 decouples, and that a monolithic optimizer takes all at once.

States are fp32: master weight and two moments, 12 bytes per parameter. The part of them that lives in host memory is
staged on the device for the step; the device part is updated where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from paperlab.mist.runtime.memory import MemoryLedger
from paperlab.mist.runtime.partition import ModuleState

_CHUNK = 1 << 20  # elements of 16-bit gradients widened at a time


@dataclass(frozen=True)
class Adam:
    """Hyperparameters, with PyTorch's meaning; no weight decay, no clipping."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not self.eps > 0:
            raise ValueError(f"learning_rate {self.learning_rate} and eps {self.eps} must be positive")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; write a number from 0 up to, not including, 1")


class Staging:
    """Device buffers for the host part of a module's three optimizer states; modules take turns in them."""

    def __init__(self, states: list[ModuleState], ledger: MemoryLedger) -> None:
        numel = max(state.optimizer[0].host.numel() for state in states)
        self._buffers = [ledger.empty(numel, torch.float32) for _ in range(3)]

    def of(self, state: ModuleState) -> list[Tensor]:
        """Return the buffers, cut to the size of the module's host part."""
        return [buffer[: state.optimizer[0].host.numel()] for buffer in self._buffers]

    def load(self, state: ModuleState) -> None:
        """Copy the states in."""
        for staged, part in zip(self.of(state), state.optimizer, strict=True):
            staged.copy_(part.host, non_blocking=True)

    def store(self, state: ModuleState) -> None:
        """Copy the states out."""
        for staged, part in zip(self.of(state), state.optimizer, strict=True):
            part.host.copy_(staged, non_blocking=True)


@torch.no_grad()
def update(
    state: ModuleState, staging: Staging, grad: tuple[Tensor, int], settings: Adam, ledger: MemoryLedger
) -> None:
    """Apply Adam to this rank's range, write the new weights into `state.weight` and clear resident gradients.

    grad: as `ModuleState.owned_grad` returns it.
    """
    master, (flat, offset), staged = state.optimizer[0], grad, staging.of(state)
    on_device, on_host = flat[master.start - offset : master.middle - offset], flat[master.middle - offset :]
    _apply([part.device for part in state.optimizer], on_device, state, settings, ledger)
    _apply(staged, on_host[: master.stop - master.middle], state, settings, ledger)
    state.step += 1
    state.weight[master.start : master.middle].copy_(master.device)
    state.weight[master.middle : master.stop].copy_(staged[0])
    if state.grad_ring is None:
        state.grad.zero_()


def _apply(states: list[Tensor], grad: Tensor, state: ModuleState, settings: Adam, ledger: MemoryLedger) -> None:
    """Run the fused kernel over one contiguous piece; the kernel counts the step in a tensor of its own."""
    master, first, second = states
    chunk = max(grad.numel(), 1) if grad.dtype == torch.float32 else _CHUNK
    for begin in range(0, grad.numel(), chunk):
        piece = slice(begin, min(begin + chunk, grad.numel()))
        gradient = grad[piece]
        if gradient.dtype != torch.float32:
            gradient = ledger.empty(gradient.numel(), torch.float32).copy_(gradient)
        adam(
            [master[piece]], [gradient], [first[piece]], [second[piece]], [], [state.step.clone()],
            fused=True, amsgrad=False, beta1=settings.beta1, beta2=settings.beta2, lr=settings.learning_rate,
            weight_decay=0.0, eps=settings.eps, maximize=False,
        )  # fmt: skip
