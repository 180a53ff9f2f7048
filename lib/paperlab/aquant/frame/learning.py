"""The reconstruction loop: what a unit learns so that its output is close to the float network's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paperlab.aquant.frame.insert import layers_of, quantizers_of
from paperlab.aquant.frame.prefix import modes
from paperlab.aquant.frame.recipe import Phase, Recipe
from paperlab.aquant.quantizer import ActivationQuantizer, coin_flips

FEWEST_STEPS = 400  # that a travel is divided by: fewer iterations do not make rates any higher
BETA_START, BETA_END = 20.0, 2.0


def reconstruction_error(output: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Return the mean over images and pixels of the sum over channels of |output - target|^power, a scalar."""
    return ((output - target).abs() ** power).sum(1).mean()


def beta(step: int, iterations: int, warmup: float) -> float | None:
    """Return the regularizer's exponent, linear from 20 to 2 after the warm-up; None during the warm-up."""
    first = warmup * iterations
    if step < first:
        return None
    return BETA_START + (BETA_END - BETA_START) * (step - first) / max(1.0, iterations - 1 - first)


def rounding_regularizer(share: Tensor, exponent: float) -> Tensor:
    """Return Σ 1 - |2h - 1|^β, zero where every h is 0 or 1 (AdaRound)."""
    return (1 - (2 * share - 1).abs() ** exponent).sum()


@torch.enable_grad()
def learn(
    unit: nn.Module, phase: Phase, recipe: Recipe, inputs: tuple[Tensor, Tensor], target: Tensor,
    fresh: dict[str, ActivationQuantizer], seed: int,
) -> None:  # fmt: skip
    """Run one phase of one unit; weights are hard afterwards if the phase learns them.

    Args:
        unit: shares its parts with the network.
        phase: what is learned, and from what.
        recipe: rates, batch, regularizer.
        inputs: of the float network and of the quantized prefix, both (N, ...).
        target: output of the float network.
        fresh: the unit's quantizers that no unit before it has learned.
        seed: of sampling and dropping.
    """
    layers = layers_of(unit)
    learned = [
        layer.weight_quantizer.start_learning(layer.weight) for layer in layers.values() if layer.weight is not None
    ] if phase.weights else []  # fmt: skip
    optimizers = _optimizers(phase, recipe, learned, fresh)
    if not optimizers:
        return
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, phase.iterations)
        for optimizer in optimizers[len(learned) > 0 :]
    ]
    sampler = torch.Generator().manual_seed(seed)
    dropper = torch.Generator(target.device).manual_seed(seed + 1)
    for quantizer in quantizers_of(unit).values():
        quantizer.drop, quantizer.generator = phase.drop, dropper
    with modes(unit, activations=phase.quantized_activations):
        for step in range(phase.iterations):
            rows = torch.randint(len(target), (recipe.batch,), generator=sampler).to(target.device)
            output = unit(_mixed(inputs, rows, phase, dropper))
            loss = reconstruction_error(output, target[rows], phase.power)
            exponent = beta(step, phase.iterations, recipe.warmup)
            if learned and exponent is not None:
                shares = [layer.weight_quantizer.soft_share() for layer in layers.values()]
                loss = loss + recipe.rounding_weight * sum(rounding_regularizer(share, exponent) for share in shares)
            _update(loss, optimizers, schedules, fresh)
    for quantizer in quantizers_of(unit).values():
        quantizer.drop, quantizer.generator = False, None
        quantizer.requires_grad_(False)
    for layer in layers.values() if phase.weights else ():
        layer.weight_quantizer.harden()


def _optimizers(
    phase: Phase, recipe: Recipe, weights: list[nn.Parameter], fresh: dict[str, ActivationQuantizer]
) -> list[torch.optim.Optimizer]:
    """Return Adam for the weights, and one with the rates of steps and borders, whichever the phase learns."""
    groups: list[dict[str, Any]] = []
    steps = max(phase.iterations, FEWEST_STEPS)
    if phase.steps and fresh:
        # A scale that several quantizers share is one parameter.
        scales = list({id(quantizer.scale): quantizer.scale for quantizer in fresh.values()}.values())
        groups.append({"params": scales, "lr": recipe.step_travel / steps})
    borders = [p for quantizer in fresh.values() if quantizer.border is not None for p in quantizer.border.parameters()]
    if phase.border and borders:
        groups.append({"params": borders, "lr": recipe.border_travel / steps})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    rate = recipe.weight_travel / steps
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(weights, lr=rate, fused=True)] if weights else []
    return optimizers + ([torch.optim.Adam(groups, fused=True)] if groups else [])


def _mixed(inputs: tuple[Tensor, Tensor], rows: Tensor, phase: Phase, dropper: torch.Generator) -> Tensor:
    """Return the phase's input rows; QDrop mixes the two prefixes element by element."""
    float_, quantized = inputs
    if not phase.quantized_input:
        return float_[rows]
    if not phase.drop:
        return quantized[rows]
    clean, rounded = float_[rows], quantized[rows]
    return torch.lerp(clean, rounded, coin_flips(rounded, dropper))


def _update(
    loss: Tensor,
    optimizers: list[torch.optim.Optimizer],
    schedules: list[torch.optim.lr_scheduler.CosineAnnealingLR],
    fresh: dict[str, ActivationQuantizer],
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    for schedule in schedules:
        schedule.step()
    for quantizer in fresh.values():
        quantizer.scale.data.abs_().clamp_(min=torch.finfo(torch.float32).eps)
