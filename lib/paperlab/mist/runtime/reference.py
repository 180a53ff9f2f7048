"""The same training on one device with plain autograd and PyTorch's Adam, and how far a plan's run is from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paperlab.mist.blocks import Embedding, Head, initialize
from paperlab.mist.collectives import Alone
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options, make_module
from paperlab.mist.runtime.engine import RankResult, synthetic_tokens

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """Losses and gradients of every iteration, and the final weights, by the parameters' names in the model."""

    losses: list[float]
    grads: list[Named]
    weights: Named


class Model(nn.Module):
    """Embedding, blocks and head in a row, on one device."""

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__()
        spec, alone = plan.model, Alone()
        modules = [Embedding(spec, alone), *(spec.block(alone) for _ in range(spec.layers)), Head(spec, alone)]
        self.parts = nn.ModuleList(modules)
        for index, module in enumerate(modules):
            initialize(module, seed * len(modules) + index)

    def forward(self, tokens_BS: Tensor, labels_BS: Tensor) -> Tensor:
        """Return the mean loss."""
        x = tokens_BS
        for module in self.parts[:-1]:
            x = module(x)
        return self.parts[-1](x, labels_BS)

    def named(self, grad: bool = False) -> Named:
        """Return a copy of all parameters or their gradients."""
        values = {name.removeprefix("parts."): p.grad if grad else p for name, p in self.named_parameters()}
        return {name: value.detach().clone() for name, value in values.items() if value is not None}


def single_process(plan: Plan, iterations: int, options: Options | None = None) -> Outcome:
    """Train the plan's model in this process, all micro-batches one after the other.

    They are as small as the plan's, so that rounding differs only where the plan computes or reduces differently.
    """
    options = options or Options()
    model = Model(plan, options.seed)
    settings = options.adam
    optimizer = torch.optim.Adam(
        model.parameters(), settings.learning_rate, (settings.beta1, settings.beta2), settings.eps
    )
    losses, grads = [], []
    for iteration in range(iterations):
        tokens = synthetic_tokens(plan.model, plan.global_batch, iteration, options.seed)
        optimizer.zero_grad()
        losses.append(0.0)
        batches = tokens.split(plan.stages[0].micro_batch)
        for batch in batches:
            loss = model(batch[:, :-1], batch[:, 1:]) / len(batches)
            loss.backward()
            losses[-1] += loss.item()
        grads.append(model.named(grad=True))
        optimizer.step()
    return Outcome(losses, grads, model.named())


def collect(plan: Plan, results: Sequence[RankResult | None]) -> Outcome:
    """Put a captured run's tensors together: every stage's first data-parallel rank, all its tensor-parallel ranks."""
    used = [result for result in results if result is not None]
    rounds = range(len(used[0].grads))
    losses = next(result.losses for result in used if result.losses)
    return Outcome(losses, [_whole(plan, used, index) for index in rounds], _whole(plan, used, None))


def _whole(plan: Plan, used: list[RankResult], iteration: int | None) -> Named:
    """Return the parameters' gradients of one iteration, or without one the final weights."""
    named: Named = {}
    number = 0
    for stage, layout in enumerate(plan.stages):
        ranks = [result for result in used if result.stage == stage][: layout.tp]
        flats = [result.weights if iteration is None else result.grads[iteration] for result in ranks]
        for parts in zip(*flats, strict=True):
            named |= {f"{number}.{name}": value for name, value in _parameters(plan, number, parts).items()}
            number += 1
    return named


def _parameters(plan: Plan, number: int, parts: Sequence[Tensor]) -> Named:
    """Cut the flat tensors of the tensor-parallel ranks into parameters and join those."""
    kind = "embedding" if number == 0 else "head" if number == plan.model.layers + 1 else "block"
    offset, named = 0, {}
    for name, parameter in make_module(plan, kind, Alone(), None).named_parameters():
        tp_dim: int | None = parameter.tp_dim  # type: ignore[attr-defined]
        shape = list(parameter.shape)
        if tp_dim is not None:
            shape[tp_dim] //= len(parts)
        size = torch.Size(shape).numel()
        cut = [part[offset : offset + size].view(shape) for part in parts]
        named[name] = cut[0] if tp_dim is None else torch.cat(cut, tp_dim)
        offset += size
    return named


def deviation(run: Outcome, expected: Outcome) -> dict[str, float]:
    """Return the largest relative deviation of losses, and of a module's gradients and weights (Frobenius norm).

    Single elements say nothing about a plan: Adam makes a whole step of a gradient that is rounding noise.
    """
    return {
        "loss": max(abs(a / b - 1) for a, b in zip(run.losses, expected.losses, strict=True)),
        "gradients": max(_largest(a, b) for a, b in zip(run.grads, expected.grads, strict=True)),
        "weights": _largest(run.weights, expected.weights),
    }


def _largest(run: Named, expected: Named) -> float:
    if run.keys() != expected.keys():
        raise ValueError(f"parameters differ: {sorted(run.keys() ^ expected.keys())}")
    modules: dict[str, list[tuple[float, float]]] = {}
    for name, value in expected.items():
        squares = float((run[name] - value).square().sum()), float(value.square().sum())
        modules.setdefault(name.partition(".")[0], []).append(squares)
    return max((sum(d for d, _ in pairs) / sum(v for _, v in pairs)) ** 0.5 for pairs in modules.values())
