"""Triton kernels of Tempo, and the choice between them and plain torch.

Triton is imported by the kernel modules only, and those only where a kernel is launched: it does not exist on
macOS. On CPU tensors the kernels run in Triton's interpreter, which `TRITON_INTERPRET=1` selects before triton is
imported.
"""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec
from typing import Literal

from torch import Tensor

Backend = Literal["torch", "triton"]

launches: Counter[str] = Counter()
"""How often each kernel was launched in this process, by name."""

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
"""Given explicitly, since triton 3.9 warns that its default is about to change."""

_FOUND = find_spec("triton") is not None


def available() -> bool:
    """Return whether triton is installed."""
    return _FOUND


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter rather than compiled."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def pick_backend(tensor: Tensor, backend: str | None = None) -> Backend:
    """Return the backend for `tensor`: the one asked for, or triton for a CUDA tensor and torch for any other.

    Raises ValueError for an unknown backend, RuntimeError where triton is asked for and cannot run.
    """
    if backend not in (None, "torch", "triton"):
        raise ValueError(f"backend must be 'torch', 'triton' or None, got {backend!r}")
    if backend is None:
        return "triton" if tensor.is_cuda and available() else "torch"
    if backend == "torch":
        return "torch"
    if not available():
        raise RuntimeError("backend='triton' needs the triton package, which is not installed; use backend='torch'")
    if not tensor.is_cuda and not (tensor.device.type == "cpu" and interpreted()):
        raise RuntimeError(
            f"backend='triton' needs a CUDA tensor, got one on {tensor.device}; for CPU tensors set "
            "TRITON_INTERPRET=1 before triton is imported, or use backend='torch'"
        )
    return "triton"
