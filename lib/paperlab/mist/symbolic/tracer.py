"""A tracer of torch programs: which storages live when, which operators run, with symbolic sizes if shapes are.

Everything comes from torch itself: the dispatcher reports forward and backward operators with their shapes, the
tape decides what is saved, and storages die when the last reference does. No operator needs a formula here.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from paperlab.mist.symbolic.sizes import Size

_SPARSE = ("embedding", "gather", "scatter_add_")  # these touch as much as they return or are given, not the table
_UNTOUCHED = ("empty", "empty_like", "new_empty", "empty_strided")


@dataclass
class Unit:
    """One node of the tape: the operators of its forward and of its backward, with their work.

    `kind` is the name of the forward operator with most work (an autograd function's own name where it holds
    several), `dims` the sizes of its first two operands, of which the first `first_rank` are the first operand's.
    """

    kind: str
    dims: tuple[Size, ...]
    first_rank: int
    flops: dict[str, Size] = field(default_factory=lambda: defaultdict(Size))
    touched_bytes: dict[str, Size] = field(default_factory=lambda: defaultdict(Size))


class SharedSize:
    """A tensor-parallel size t while tracing: n // size is the n/`units` part of one rank's `share` = units/t.

    Sizes cut over t then stay products, which torch's symbolic shapes handle far faster than divisions.
    """

    def __init__(self, units: int, share: Any) -> None:
        self.units, self.share = units, share
        self.divided: set[int] = set()

    def __rfloordiv__(self, whole: int) -> Any:
        if whole % self.units:
            raise ValueError(
                f"a size of {whole} is cut over tensor-parallel ranks, but {self.units} does not divide it"
            )
        self.divided.add(whole)
        return whole // self.units * self.share


class SizeReader:
    """Turns torch's integers, plain or symbolic in batch and share, into `Size`s."""

    def __init__(self, batch: Any, size: Any) -> None:
        self._batch = _symbol(batch)
        self._share = _symbol(size.share) if isinstance(size, SharedSize) else None
        self._units = size.units if isinstance(size, SharedSize) else 1
        self._known: dict[Any, Size] = {}

    def __call__(self, value: Any) -> Size:
        """Return `value` as a polynomial in batch and 1/tp."""
        expression = _symbol(value)
        if expression is None:
            return Size.constant(int(value))
        if expression not in self._known:
            generators = (self._batch or sympy.Dummy(), self._share or sympy.Dummy())
            poly = sympy.Poly(expression, *generators)
            terms = {(i, j): Fraction(int(value)) * self._units**j for (i, j), value in poly.terms()}
            self._known[expression] = Size.of(terms)
        return self._known[expression]


def _symbol(value: Any) -> Any:
    return value.node.expr if isinstance(value, torch.SymInt) else None


class Tracer(TorchDispatchMode):
    """Follows storages and operators. `ignored` tensors (parameters, their gradients) are not counted.

    `phase` names what is running; `snapshots[phase]` lists (live bytes, operator) after every operator, while its
    inputs still live.
    """

    def __init__(self, reader: SizeReader, ignored: list[Tensor]) -> None:
        super().__init__()
        self.read = reader
        self.phase = "input"
        self.live = Size()
        self.snapshots: dict[str, list[tuple[Size, str]]] = defaultdict(list)
        self.units: dict[int, Unit] = {}
        self.messages: list[tuple[str, Size]] = []  # (phase, bytes) of tensor-parallel all-reduces
        self._alive: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in ignored}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outputs:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self._account(func, inputs, outputs, _flops(func, args, kwargs or {}, result))
            for tensor in outputs:
                self._born(tensor.untyped_storage())
            self.snapshots[self.phase].append((self.live, func.overloadpacket.__name__))
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            size = self.read(storage.nbytes())
            self.live = self.live + size
            self._alive[key] = weakref.finalize(storage, self._died, key, size)

    def _died(self, key: int, size: Size) -> None:
        del self._alive[key]
        self.live = self.live - size

    def _account(self, func: Any, inputs: list[Tensor], outputs: list[Tensor], flops: Any) -> None:
        """Add the operator's work to its tape node, unless it only renames memory."""
        name = func.overloadpacket.__name__
        given = {tensor.untyped_storage()._cdata for tensor in inputs}
        is_view = not func._schema.is_mutable and all(t.untyped_storage()._cdata in given for t in outputs)
        if is_view or name in _UNTOUCHED or self.phase == "input":
            return
        node = torch._C._current_autograd_node()
        number = torch.autograd._get_sequence_nr() - 1 if node is None else node._sequence_nr()
        if node is not None and node.name().endswith("AccumulateGrad"):
            return
        if number not in self.units:
            dims = tuple(self.read(size) for tensor in inputs[:2] for size in tensor.shape)
            self.units[number] = Unit(name, dims, inputs[0].dim() if inputs else 0)
        unit = self.units[number]
        if node is not None and node.name().startswith("_"):  # a Python autograd function: _CrossEntropyBackward
            unit.kind = node.name()
        unit.flops[self.phase] += self.read(flops)
        touched = outputs * 3 if name in _SPARSE and name != "scatter_add_" else inputs + outputs
        if name == "scatter_add_":
            touched = inputs[1:] * 2
        for tensor in touched:
            unit.touched_bytes[self.phase] += self.read(tensor.numel()) * tensor.element_size()


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Return the FLOPs of matrix products and attention, 0 for all other operators."""
    packet = func.overloadpacket
    if packet.__name__ == "_scaled_dot_product_flash_attention_for_cpu":
        return sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
    if packet.__name__ == "_scaled_dot_product_flash_attention_for_cpu_backward":
        return sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
    if packet in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.baddbmm):
        return flop_registry[packet](*args, **kwargs, out_val=result)
    return 0
