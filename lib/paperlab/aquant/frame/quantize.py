"""The whole of it: calibrate, learn unit by unit, deploy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, fx, nn

from paperlab.aquant.closed_form import fit_borders
from paperlab.aquant.frame.insert import layers_of, prepare
from paperlab.aquant.frame.prefix import Prefix
from paperlab.aquant.frame.recipe import Recipe, make_recipe
from paperlab.aquant.frame.report import UnitReport, quantizer_table, unit_table
from paperlab.aquant.frame.resume import Checkpoints, fingerprint
from paperlab.aquant.frame.scales import grid
from paperlab.aquant.frame.sweep import MEASURE, Sweep
from paperlab.aquant.frame.units import find_units
from paperlab.aquant.layers import QuantConv2d
from paperlab.aquant.networks.layout import channels_last
from paperlab.aquant.quantizer import ActivationQuantizer

STATISTICS_IMAGES = 256  # for activation scales, as QDrop's code takes


class QuantizedModel(nn.Module):
    """A quantized network: integer weights, activations on grids, no float weight left, nothing random.

    `network` is the graph it runs, `recipe` how it came about.
    """

    def __init__(self, network: fx.GraphModule, recipe: Recipe, reports: Sequence[UnitReport] = ()) -> None:
        super().__init__()
        self.network, self.recipe, self.reports = network, recipe, list(reports)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output for images `x`."""
        return self.network(x)

    def report(self) -> pd.DataFrame:
        """Return one row per unit and pass: losses before and after, flipped shares, clip rate, bits."""
        return unit_table(self.reports)

    def quantizers(self) -> pd.DataFrame:
        """Return one row per quantizer: what it quantizes, bits, scale, border."""
        return quantizer_table(self.network)


def quantize(
    model: nn.Module,
    calibration: Tensor | Iterable[Any],
    method: str = "aquant",
    w_bits: int = 4,
    a_bits: int = 4,
    resume: Path | None = None,
    **settings: Any,
) -> QuantizedModel:
    """Quantize a trained model after training, without labels.

    Args:
        model: convolutions, linear layers, batch norms, ReLUs, pools and sums, in any arrangement fx can trace.
        calibration: images (N, ...), or batches of them such as a DataLoader gives (labels are ignored).
        method: "rtn", "adaround", "brecq", "qdrop", "aquant", or "aquant_cf" (nearest weights, border in closed form).
        w_bits: of weights, 2 to 8.
        a_bits: of activations, 2 to 8.
        resume: folder for one file per learned unit; a run that was cut short goes on from there.
        settings: fields of `Recipe`, such as iterations, drop, border, stem_head, seed.

    Raises:
        ValueError: unsupported modules (all named), too few images or NaN in them, bad bits or settings, activations
            that are not finite, or a resume folder of another run.
    """
    recipe = make_recipe(method, w_bits, a_bits, settings)
    images = gather(calibration, recipe.batch).to(next(model.parameters()).device)
    network = prepare(model, recipe, images[: recipe.batch])
    calibrate(network, images[:STATISTICS_IMAGES], recipe)
    checkpoints = Checkpoints(resume, fingerprint(model, images, recipe) if resume else "")
    units = find_units(network, recipe.layerwise)
    if method == "aquant_cf":
        fit_borders(network, images, recipe.terms)
    reports: list[UnitReport] = []
    for number, phases in enumerate(recipe.sweeps() or [(MEASURE,)]):
        reports += Sweep(network, images, recipe, number, phases).run(units, checkpoints)
    for layer in layers_of(network).values():
        layer.deploy()
    return QuantizedModel(network, recipe, reports).eval()


def gather(calibration: Tensor | Iterable[Any], least: int) -> Tensor:
    """Return calibration images as one float tensor.

    Raises:
        ValueError: there are fewer than `least`, they are not float images, or some value is not finite.
    """
    if not isinstance(calibration, Tensor):
        batches = [item[0] if isinstance(item, (tuple, list)) else item for item in calibration]
        calibration = torch.cat(batches) if batches else torch.empty(0, 0)
    if len(calibration) < least:
        raise ValueError(
            f"calibration: {len(calibration)} images; give at least {least} (one batch), better 512 to 1024"
        )
    if not calibration.is_floating_point() or calibration.dim() not in (2, 4):
        raise ValueError(
            f"calibration: {calibration.dtype} of shape {tuple(calibration.shape)}; give float images (N, C, H, W)"
        )
    if not calibration.isfinite().all():
        bad = int((~calibration.flatten(1).isfinite().all(1)).sum())
        raise ValueError(f"calibration: {bad} of {len(calibration)} images hold NaN or infinity; remove them")
    return channels_last(calibration.detach())


def calibrate(network: fx.GraphModule, images: Tensor, recipe: Recipe) -> None:
    """Set every weight and activation grid from the weights and from the float network's activations.

    Raises:
        ValueError: an activation is not finite; the message names the tensor.
    """
    for name, layer in layers_of(network).items():
        assert layer.weight is not None
        if not layer.weight.isfinite().all():
            raise ValueError(f"{name}: its weight holds NaN or infinity; load a sound checkpoint")
        layer.weight_quantizer.set_grid(*grid(layer.weight.flatten(1), layer.weight_quantizer.bits, recipe.scales))
    prefix = Prefix(network, images, (), activations=False)
    for node in prefix.nodes:
        prefix.advance(node)
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        quantizer = module.patch_quantizer if isinstance(module, QuantConv2d) else module
        if isinstance(quantizer, ActivationQuantizer):
            values = prefix.float_[node.args[0]]
            if not values.isfinite().all():
                raise ValueError(
                    f"activation {node.args[0]} holds NaN or infinity; check the model and the images' scale"
                )
            quantizer.set_grid(*grid(values.reshape(1, -1), quantizer.bits, recipe.scales))
