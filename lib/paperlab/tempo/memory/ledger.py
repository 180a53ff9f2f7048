"""Exact ledger of the bytes autograd retains: every storage once, with who kept it.

Hooks on saved tensors see whatever the backward pass will need, on real tensors and on the meta device alike,
so BERT-Large at any batch is accounted for in seconds without its memory. Inside compiled regions the hooks
are silently skipped (PyTorch #116221), so a compiled model is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import layer_indices, meta_copy
from paperlab.tempo.dropin.report import OUTSIDE

KEYS = ["layer", "operator", "module"]


@dataclass(frozen=True)
class Kept:
    """One storage kept for backward: its bytes and who kept it first (layer is -1 outside the stack)."""

    layer: int
    operator: str
    module: str
    bytes: int


class _OperatorNames(TorchFunctionMode):
    """Remembers the Python-level torch function that is running."""

    current: str | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before, self.current = self.current, getattr(func, "__name__", str(func)).strip("_")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.current = before


def _custom_function_name() -> str | None:
    """Name of the innermost running `torch.autograd.Function`, which function modes do not see."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "apply":  # asked first: reading a frame's locals copies them
            owner = frame.f_locals.get("cls")
            if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
                return owner.__name__.strip("_")
        frame = frame.f_back  # type: ignore[assignment]
    return None


@dataclass
class _Recorder:
    """Collects kept storages; holding the storage itself keeps its handle from being reused."""

    ignored: set[int]
    layers: Mapping[str, int]
    paths: Mapping[nn.Module, str]
    names: _OperatorNames = field(default_factory=_OperatorNames)
    stack: list[str] = field(default_factory=lambda: [""])
    kept: dict[int, tuple[torch.UntypedStorage, Kept]] = field(default_factory=dict)

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.ignored and storage._cdata not in self.kept:
            operator = _custom_function_name() or self.names.current or "unknown"
            module = self.stack[-1]
            entry = Kept(self.layers.get(module, OUTSIDE), operator, module, storage.nbytes())
            self.kept[storage._cdata] = (storage, entry)
        return tensor.detach()  # the tensor itself would tie an output into a reference cycle

    def enter(self, module: nn.Module, _: Any) -> None:
        self.stack.append(self.paths.get(module, self.stack[-1]))

    def leave(self, *_: Any) -> None:
        self.stack.pop()


def _refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise ValueError(
                f"model: module '{name or type(module).__name__}' is compiled, where saved-tensor hooks are "
                "skipped; pass the eager model"
            )


@contextmanager
def _recording(model: nn.Module) -> Iterator[_Recorder]:
    parameters_and_buffers = [*model.parameters(), *model.buffers()]
    recorder = _Recorder(
        ignored={tensor.untyped_storage()._cdata for tensor in parameters_and_buffers},
        layers=layer_indices(model),
        paths={module: name for name, module in model.named_modules()},
    )
    hooks = nn.modules.module
    handles = [
        hooks.register_module_forward_pre_hook(recorder.enter),
        hooks.register_module_forward_hook(recorder.leave, always_call=True),
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(recorder.pack, lambda tensor: tensor), recorder.names:
            yield recorder
    finally:
        for handle in handles:
            handle.remove()


def retained(model: nn.Module, batch: Mapping[str, Any] | tuple[Any, ...]) -> pd.DataFrame:
    """Run one forward pass and list every storage autograd keeps: columns layer, operator, module, bytes.

    `batch` is keyword arguments or a tuple of positional ones. Parameters and buffers are skipped; the model's
    mode is left as it is, so a model in `eval()` under `no_grad` lists nothing. Raises `ValueError` on a
    compiled model.
    """
    _refuse_compiled(model)
    args, kwargs = ((), batch) if isinstance(batch, Mapping) else (batch, {})
    with _recording(model) as recorder:
        output = model(*args, **kwargs)
        entries = [entry for _, entry in recorder.kept.values()]
    del output
    return pd.DataFrame([vars(entry) for entry in entries], columns=[*KEYS, "bytes"])


def retained_bytes(model: nn.Module, batch: Mapping[str, Any] | tuple[Any, ...]) -> int:
    """Total bytes autograd keeps for one forward pass of `model`."""
    return int(retained(model, batch)["bytes"].sum())


def ledger(model: nn.Module, batch: Mapping[str, Any] | tuple[Any, ...], *, as_on_gpu: bool = False) -> pd.DataFrame:
    """Bytes kept per layer and operator, beside those of the same model un-patched.

    Columns layer (-1 outside the encoder stack), operator, module, bytes, baseline_bytes; one row per operator
    and module, zero where only one of the two keeps something. The model is left patched as it was. On the CPU
    plain dropout keeps a float tensor, which flatters Tempo: `as_on_gpu` accounts for a copy on the meta device
    with the memory of a GPU instead (a padding mask then counts as full).
    """
    if as_on_gpu:
        model = baselines.as_on_gpu(meta_copy(model))
        batch = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), batch)
    ours = retained(model, batch).groupby(KEYS, as_index=False).sum()
    with patch.reverted(model):
        baseline = retained(model, batch).groupby(KEYS, as_index=False).sum()
    table = ours.merge(baseline.rename(columns={"bytes": "baseline_bytes"}), on=KEYS, how="outer")
    return table.fillna({"bytes": 0, "baseline_bytes": 0}).astype({"bytes": int, "baseline_bytes": int})
