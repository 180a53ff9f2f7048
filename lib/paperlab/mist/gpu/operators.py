"""Times operators by kind and shape, as the cost model's table holds them, and whole blocks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from paperlab.lab import timing
from paperlab.mist.blocks import DTYPES, ScoreBuffer, initialize
from paperlab.mist.collectives import Alone
from paperlab.mist.cost.operators import Key, OperatorModel, key, rates_of
from paperlab.mist.kernels import causal_softmax
from paperlab.mist.models import ModelSpec
from paperlab.mist.symbolic.trace import symbolic_trace

Operands = tuple[Callable[..., Tensor], list[Tensor]]


def keys(spec: ModelSpec, batch: int, tp: int) -> list[Key]:
    """Return kind and shape of every operator with cost in embedding, block and head, each once."""
    found = set()
    for trace in symbolic_trace(spec).values():
        found |= {key(unit, batch, tp) for unit in trace.units}
        found.add(("accumulate", (trace.weights.exact(batch, tp) // spec.bytes_per_element,)))
    return sorted(item for item in found if item is not None)


def operands(where: Key, spec: ModelSpec, batch: int, device: str) -> Operands:
    """Return a function and its arguments that run one operator of the table."""
    kind, shape = where
    tokens, seq = batch * spec.seq_len, spec.seq_len

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, device=device).to(DTYPES[spec.dtype]).requires_grad_()

    if kind == "product":
        m, k, n = shape
        return torch.mm, [random(m, k), random(k, n)]
    if kind == "scores":
        b, s, d = shape
        return lambda q, k: torch.bmm(q, k.transpose(1, 2)), [random(b, s, d), random(b, s, d)]
    if kind == "context":
        b, s, d = shape
        return torch.bmm, [random(b, s, s), random(b, s, d)]
    if kind == "attention":
        inputs = [random(*shape) for _ in range(3)]
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), inputs
    if kind == "embedding":
        vocab, hidden, count = shape
        ids = torch.randint(vocab, (count,), device=device)
        return lambda table: F.embedding(ids, table), [random(vocab, hidden)]
    return _pointwise(kind, shape[0], tokens, seq, random)


def _pointwise(kind: str, count: int, tokens: int, seq: int, random: Callable[..., Tensor]) -> Operands:
    if kind == "softmax":
        return causal_softmax, [random(count // seq**2, seq, seq)]
    if kind == "norm":
        width = count // tokens
        return lambda x, w: F.layer_norm(x, (width,), w), [random(tokens, width), random(width)]
    if kind == "cross_entropy":
        logits = random(tokens, count // tokens)
        labels = torch.randint(count // tokens, (tokens,), device=logits.device)
        return lambda x: F.cross_entropy(x.float(), labels), [logits]
    if kind in ("add", "accumulate"):
        return torch.add, [random(count), random(count)]
    return lambda x: F.gelu(x, approximate="tanh"), [random(count)]


def operator_rows(spec: ModelSpec, tp: int, batches: tuple[int, ...], repeats: int, device: str) -> pd.DataFrame:
    """Return forward and backward medians (ms) of every operator of a model at one tensor-parallel size."""
    rows = []
    for batch in batches:
        for where in keys(spec, batch, tp):
            forward_s, backward_s = _pair_s(*operands(where, spec, batch, device), repeats, device)
            if where[0] == "accumulate":  # an addition in place, in backward only
                forward_s, backward_s = 0.0, forward_s
            shape = "x".join(map(str, where[1]))
            rows.append((where[0], shape, 1e3 * forward_s, 1e3 * backward_s, spec.name, spec.attention, tp, batch))
    columns = ["kind", "shape", "forward_ms", "backward_ms", "model", "attention", "tp", "batch"]
    return pd.DataFrame(rows, columns=columns).assign(**timing.machine(device))


def _pair_s(forward: Callable[..., Tensor], inputs: list[Tensor], repeats: int, device: str) -> tuple[float, float]:
    """Return the median seconds of a forward and of a backward pass, after one of each that does not count."""
    output = forward(*inputs)
    grad = torch.ones_like(output)

    def backward() -> None:
        torch.autograd.grad(output, inputs, grad, retain_graph=True)

    backward()
    times = [timing.timed(work, repeats, device) for work in (lambda: forward(*inputs), backward)]
    return statistics.median(times[0]), statistics.median(times[1])


def model_of(table: pd.DataFrame) -> OperatorModel:
    """Return the cost model's operators from an operator table, without the artifact's thresholds."""
    rows = {}
    for row in table.to_dict("records"):
        shape = tuple(map(int, str(row["shape"]).split("x")))
        rows[str(row["kind"]), shape] = row["forward_ms"] / 1e3, row["backward_ms"] / 1e3
    return OperatorModel(rows, rates_of(rows), thresholds=False)


def layer_rows(
    spec: ModelSpec, batches: tuple[int, ...], repeats: int, device: str, table: pd.DataFrame
) -> pd.DataFrame:
    """Return measured and predicted times (ms) of whole blocks; empty until the model's operators were measured."""
    if table.empty or table[(table.model == spec.name) & (table.attention == spec.attention) & (table.tp == 1)].empty:
        return pd.DataFrame()
    operators, trace = model_of(table), symbolic_trace(spec)["block"]
    rows = list(_layers(spec, batches, repeats, device))
    predicted = [operators.layer_s(trace, batch, 1) for batch, _, _ in rows]
    frame = pd.DataFrame(rows, columns=["batch", "forward_ms", "backward_ms"])
    frame["predicted_forward_ms"], frame["predicted_backward_ms"] = (
        [1e3 * pair[index] for pair in predicted] for index in (0, 1)
    )
    return frame.assign(model=spec.name, attention=spec.attention, **timing.machine(device))


def _layers(spec: ModelSpec, batches: tuple[int, ...], repeats: int, device: str) -> Iterator[tuple[int, float, float]]:
    block = spec.block(Alone(), ScoreBuffer())
    initialize(block, 0)
    block.to(device)
    for batch in batches:
        leading = (batch, spec.seq_len) if spec.attention == "flash" else (spec.seq_len, batch)
        hidden = torch.randn((*leading, spec.shape.hidden), device=device).to(DTYPES[spec.dtype]).requires_grad_()
        leaves = [hidden, *block.parameters()]
        forward_s, backward_s = _pair_s(lambda x, *_: block(x), leaves, repeats, device)
        yield batch, 1e3 * forward_s, 1e3 * backward_s
