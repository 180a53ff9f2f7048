"""What a computation keeps for backward, counted by storage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def kept_bytes(compute: Callable[[], object], *ignored: Tensor | None) -> list[int]:
    """Sizes, in order of keeping, of the distinct storages autograd keeps, less those of `ignored` tensors."""
    known = {t.untyped_storage()._cdata for t in ignored if t is not None}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            storages[storage._cdata] = storage  # held, so that no freed address comes back
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return [storage.nbytes() for storage in storages.values()]


def relative_error(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()
