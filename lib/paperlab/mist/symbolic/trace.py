"""Traces of a model's three kinds of layer: embedding, block, head (the paper's pre-layer, layer, post-layer)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from paperlab.mist.blocks import DTYPES, Block, Embedding, Head, ScoreBuffer
from paperlab.mist.models import ModelSpec
from paperlab.mist.symbolic.sizes import Peak, Size, total
from paperlab.mist.symbolic.tracer import SharedSize, SizeReader, Tracer, Unit

KINDS = ("embedding", "block", "head")
BATCH_HINT, SHARE_HINT = 6, 5  # decide only guards that hold for every size


@dataclass(frozen=True)
class LayerTrace:
    """What one layer needs, as functions of the per-device batch and the tensor-parallel size; all sizes in bytes.

    saved: kept from forward to backward, the input included. input, output: of hidden states.
    forward_peak: live during forward, input and output included; `recomputed_forward_peak`: without a tape.
    backward_peak: live during backward, the output's gradient included, parameter gradients not;
        `recomputed_backward_peak`: with the forward run again from the input.
    weights: parameters of one rank. workspace: scratch shared by the stage's blocks.
    units: operators with their work. forward_messages, backward_messages: tensor-parallel all-reduces.
    divisors: sizes that tp must divide.
    """

    kind: str
    saved: Size
    input: Size
    output: Size
    forward_peak: Peak
    recomputed_forward_peak: Peak
    backward_peak: Peak
    recomputed_backward_peak: Peak
    weights: Size
    workspace: Size
    units: tuple[Unit, ...]
    forward_messages: tuple[Size, ...]
    backward_messages: tuple[Size, ...]
    divisors: tuple[int, ...]

    def feasible(self, tp: int) -> bool:
        """Whether tp divides every size that is split over it."""
        return all(size % tp == 0 for size in self.divisors)


class _TracedGroup:
    """A tensor-parallel group of symbolic size that notes what it would send."""

    rank = 0

    def __init__(self, size: Any) -> None:
        self.size = size
        self.tracer: Tracer | None = None

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        if self.tracer is not None:
            size = self.tracer.read(x.numel()) * x.element_size()
            self.tracer.messages.append((self.tracer.phase, size))
        return x


@cache
def symbolic_trace(spec: ModelSpec) -> dict[str, LayerTrace]:
    """Trace embedding, block and head once, with symbolic batch and tp; cached."""
    environment = ShapeEnv()
    batch = _new_symbol(environment, "batch", BATCH_HINT)
    units = math.gcd(spec.shape.kv_heads, spec.shape.ffn, spec.shape.vocab)
    tp = SharedSize(units, _new_symbol(environment, "share", SHARE_HINT))
    mode = FakeTensorMode(shape_env=environment)
    mode.cache_enabled = False  # looking up symbolic shapes takes longer than inferring them again
    with mode:
        return {kind: trace_layer(_builder(spec, kind), spec, batch, tp, kind) for kind in KINDS}


def concrete_trace(spec: ModelSpec, batch: int, tp: int, kinds: tuple[str, ...] = KINDS) -> dict[str, LayerTrace]:
    """Trace with plain numbers, as a per-configuration analysis would; the sizes come out as constants."""
    spec.check_tp(tp)
    with FakeTensorMode():
        return {kind: trace_layer(_builder(spec, kind), spec, batch, tp, kind) for kind in kinds}


Builder = Callable[[Any], nn.Module]


def _builder(spec: ModelSpec, kind: str) -> Builder:
    if kind == "block":
        return lambda group: spec.block(group, ScoreBuffer())
    return (lambda group: Embedding(spec, group)) if kind == "embedding" else (lambda group: Head(spec, group))


def _new_symbol(environment: ShapeEnv, name: str, hint: int) -> Any:
    source = ConstantSource(name)
    symbol = environment.create_symbol(hint, source=source, dynamic_dim=DimDynamic.DYNAMIC)
    return environment.create_symintnode(symbol, hint=hint, source=source)


def trace_layer(build: Builder, spec: ModelSpec, batch: Any, tp: Any, kind: str) -> LayerTrace:
    """Trace the layer that `build(group)` makes, under the caller's tensor mode (fake, symbolic or real).

    `kind` says what it is given: "embedding" tokens, "head" hidden states and labels, everything else hidden states.
    """
    reader = SizeReader(batch, tp)
    group = _TracedGroup(tp)
    layer = build(group)
    for parameter in layer.parameters():
        # Gradients exist before backward and are added to in place, as in training with accumulation.
        parameter.grad = torch.zeros_like(parameter)
    run = _Run(layer, spec, batch, kind, reader, group)
    if isinstance(layer, Block):
        layer.attention.reserve(batch)
    plain = run(recompute=False)
    recomputed = plain if kind in ("embedding", "head") else run(recompute=True)  # these two never are
    input_bytes, output_bytes = run.hidden_bytes()
    buffer = run.buffer()
    return LayerTrace(
        kind=kind,
        saved=plain.saved,
        input=input_bytes,
        output=output_bytes,
        forward_peak=Peak.of(plain.tracer.snapshots["forward"]),
        recomputed_forward_peak=Peak.of(recomputed.tracer.snapshots["forward"]),
        backward_peak=Peak.of(plain.tracer.snapshots["backward"]),
        recomputed_backward_peak=Peak.of(recomputed.tracer.snapshots["backward"]),
        weights=total(reader(p.numel()) * p.element_size() for p in layer.parameters()),
        workspace=reader(buffer.numel()) * buffer.element_size() if buffer is not None else Size(),
        units=tuple(plain.tracer.units[number] for number in sorted(plain.tracer.units)),
        forward_messages=tuple(size for phase, size in plain.tracer.messages if phase == "forward"),
        backward_messages=tuple(size for phase, size in plain.tracer.messages if phase == "backward"),
        divisors=tuple(sorted(tp.divided)) if isinstance(tp, SharedSize) else (),
    )


@dataclass(frozen=True)
class _Pass:
    tracer: Tracer
    saved: Size


class _End(torch.autograd.Function):
    """Stands for what follows a layer: keeps nothing of the output and makes its gradient when backward begins."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = output.shape, output.dtype
        return torch.empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        return torch.empty(ctx.shape, dtype=ctx.dtype)


def _end(output: Tensor) -> GradientEdge:
    return get_gradient_edge(_End.apply(output))


class _Run:
    """Runs one layer forward and backward under a tracer, as a pipeline stage does: outputs are let go."""

    def __init__(
        self, layer: nn.Module, spec: ModelSpec, batch: Any, kind: str, reader: SizeReader, group: Any
    ) -> None:
        self.layer, self.spec, self.batch, self.kind = layer, spec, batch, kind
        self.reader, self.group = reader, group

    def inputs(self, requires_grad: bool) -> tuple[Tensor, ...]:
        """Return fresh inputs: token ids for the embedding, hidden states (and labels for the head) otherwise."""
        tokens = torch.zeros((self.batch, self.spec.seq_len), dtype=torch.int64)
        if self.kind == "embedding":
            return (tokens,)
        hidden = self._hidden(requires_grad)
        return (hidden, tokens) if self.kind == "head" else (hidden,)

    def _hidden(self, requires_grad: bool) -> Tensor:
        leading = (self.batch, self.spec.seq_len)
        if self.spec.attention == "math":
            leading = leading[::-1]
        shape = (*leading, self.spec.shape.hidden)
        return torch.zeros(shape, dtype=DTYPES[self.spec.dtype], requires_grad=requires_grad)

    def buffer(self) -> Tensor | None:
        """Return the stage's scratch tensor, if the layer has one."""
        attention = getattr(self.layer, "attention", None)
        return getattr(attention, "buffer", ScoreBuffer()).tensor

    def hidden_bytes(self) -> tuple[Size, Size]:
        """Return the bytes of hidden states that go in and come out."""
        hidden = self._hidden(False)
        size = self.reader(hidden.numel()) * hidden.element_size()
        return (Size() if self.kind == "embedding" else size), (Size() if self.kind == "head" else size)

    def __call__(self, recompute: bool) -> _Pass:
        """Run forward, then backward, which runs forward again first if `recompute`."""
        leaves = self.inputs(requires_grad=True)
        buffer = self.buffer()
        ignored = [*leaves, *self.layer.parameters(), *(p.grad for p in self.layer.parameters() if p.grad is not None)]
        tracer = Tracer(self.reader, ignored if buffer is None else [*ignored, buffer])
        self.group.tracer = tracer
        with tracer:
            inputs = tuple(leaf.clone() for leaf in leaves)
            tracer.phase = "forward"
            with torch.set_grad_enabled(not recompute):
                output = self.layer(*inputs)
            edge = None if recompute else _end(output)
            inputs = inputs if recompute else ()
            del output
            saved = tracer.live
            tracer.phase = "backward"
            if recompute:
                edge = _end(self.layer(*inputs))
                inputs = ()
            assert edge is not None
            torch.autograd.backward(edge, torch.empty(0))
        self.group.tracer = None
        return _Pass(tracer, saved)
