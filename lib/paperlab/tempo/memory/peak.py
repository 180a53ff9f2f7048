"""Peak of live bytes through a training step, and the operator at the peak, by tracking storages.

A dispatch mode sees every tensor that an operator returns; a finalizer on its storage tells when it dies. This
counts what the caching allocator would hold at the same moment, less what kernels allocate for themselves.
It works on the CPU and on the meta device; parameters, inputs and everything older than the step are left out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True)
class StepPeak:
    """Live bytes of one training step, above what was there before it.

    `peak_bytes` is the largest value, reached in `phase` while `operator` ran; `forward_bytes` is what was alive
    between forward and backward, `end_bytes` what the step left behind (gradients, optimizer state), and
    `transient_bytes` what backward added to `forward_bytes` at its worst.
    """

    peak_bytes: int
    operator: str
    phase: Phase
    forward_bytes: int
    transient_bytes: int
    end_bytes: int


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of the storages born inside the mode and still alive, and keeps the maximum per phase."""

    def __init__(self, ignored: Mapping[int, Any]) -> None:
        super().__init__()
        self._known: dict[int, Any] = dict(ignored)
        self.live_bytes = 0
        self.phase: Phase = "forward"
        self.peaks: dict[Phase, tuple[int, str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        highest, _ = self.peaks.get(self.phase, (-1, ""))
        if self.live_bytes > highest:
            self.peaks[self.phase] = (self.live_bytes, func.overloadpacket.__name__)
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self.live_bytes += size
        self._known[key] = weakref.finalize(storage, self._died, key, size)

    def _died(self, key: int, size: int) -> None:
        del self._known[key]
        self.live_bytes -= size


def _loss(output: Any) -> Tensor:
    """The loss a Hugging Face model returns, or else the sum of the first floating-point output."""
    if (loss := getattr(output, "loss", None)) is not None:
        return loss
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return tensors[0].sum()


def step_peak(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    loss: Callable[[Any], Tensor] = _loss,
    optimizer: torch.optim.Optimizer | None = None,
) -> StepPeak:
    """Run forward, backward and, if given, an optimizer step, and report the peak of live bytes.

    Gradients count as they are made; give the parameters gradients beforehand to leave them out, as with
    `zero_grad(set_to_none=False)`. Own derivation; the tracker is checked against the sum of known storages.
    """
    known = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    known += [leaf for leaf in tree_leaves(dict(batch)) if isinstance(leaf, Tensor)]
    storages = [tensor.untyped_storage() for tensor in known]
    with LiveStorages({storage._cdata: storage for storage in storages}) as tracker:
        objective = loss(model(**batch))
        forward_bytes = tracker.live_bytes
        tracker.phase = "backward"
        objective.backward()
        del objective
        if optimizer is not None:
            tracker.phase = "optimizer"
            optimizer.step()
        end_bytes = tracker.live_bytes
    phase: Phase = max(tracker.peaks, key=lambda name: tracker.peaks[name][0])
    peak_bytes, operator = tracker.peaks[phase]
    transient_bytes = max(tracker.peaks["backward"][0] - forward_bytes, 0)
    return StepPeak(peak_bytes, operator, phase, forward_bytes, transient_bytes, end_bytes)
