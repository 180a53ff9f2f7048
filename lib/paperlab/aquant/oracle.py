"""The run-time oracle: which neighbor every activation should be rounded to, found per image by coordinate descent.

It knows the float weights and looks at each input, which no deployed quantizer can; what it gains is a bound on what
any border could gain, and why the paper calls the choice dynamic and costly.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from paperlab.aquant.frame.graph import is_layer
from paperlab.aquant.layers import QuantConv2d, QuantLayer
from paperlab.aquant.quantizer import ActivationQuantizer

SWEEPS = 3  # over all elements of a patch; later ones change next to nothing


def best_levels(
    u: Tensor, weight_hat: Tensor, target: Tensor, scale: Tensor, low: Tensor, high: Tensor, sweeps: int = SWEEPS
) -> Tensor:
    """Return levels in {floor(u), ceil(u)} that bring `scale · level · ŵᵀ` close to `target`, greedily.

    Args:
        u: activations in units of the scale, (P, K).
        weight_hat: quantized weights, (O, K).
        target: wanted outputs without bias, (P, O).
        scale: of the activations.
        low, high: the grid's range.
        sweeps: passes of coordinate descent from nearest rounding; the error never rises.
    """
    floor, ceil = u.floor().clamp(low, high), u.ceil().clamp(low, high)
    levels = u.round().clamp(low, high)
    residual = scale * levels @ weight_hat.T - target
    squares = (weight_hat**2).sum(0)
    for _ in range(sweeps):
        for k in range(u.shape[1]):
            if squares[k] == 0:
                continue
            wanted = levels[:, k] - residual @ weight_hat[:, k] / (scale * squares[k])
            nearer_up = (ceil[:, k] - wanted).abs() < (floor[:, k] - wanted).abs()
            new = torch.where(nearer_up, ceil[:, k], floor[:, k])
            residual += scale * (new - levels[:, k])[:, None] * weight_hat[:, k]
            levels[:, k] = new
    return levels


class OracleNetwork(fx.Interpreter):
    """Runs a calibrated, not yet deployed network with the oracle's rounding in every layer with low-bit input.

    Convolutions are rounded per patch (each k×k position on its own), which relaxes the problem. Layers behind averages
    and with 8-bit input are left to nearest rounding, as are identities.
    """

    def __init__(self, network: fx.GraphModule, bits: int) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.bits = bits

    def run_node(self, node: fx.Node) -> Tensor:
        """Run one node; the oracle takes over for layers."""
        source = self._quantizer_before(node)
        if source is None:
            return super().run_node(node)
        layer, quantizer = self.fetch_attr(str(node.target)), self.fetch_attr(str(source.target))
        x = self.env[source.all_input_nodes[0]]
        assert isinstance(layer, QuantLayer)
        assert isinstance(quantizer, ActivationQuantizer)
        assert isinstance(x, Tensor)
        return oracle_output(layer, quantizer, x)

    def _quantizer_before(self, node: fx.Node) -> fx.Node | None:
        if not is_layer(node, self.module):
            return None
        source = node.all_input_nodes[0]
        module = self.fetch_attr(str(source.target)) if source.op == "call_module" else None
        return source if isinstance(module, ActivationQuantizer) and module.bits == self.bits else None


@torch.no_grad()
def oracle_output(layer: QuantLayer, quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
    """Return a layer's output for unquantized input `x` (N, C, ...), rounded so as to be near the float layer's."""
    assert layer.weight is not None
    patches = layer.unfold(x) if isinstance(layer, QuantConv2d) else x[:, :, None]
    groups = patches.unflatten(1, (layer.groups, -1))
    w, w_hat = (item.reshape(groups.shape[1], -1, groups.shape[2]) for item in (layer.weight, layer.quantized_weight()))
    outputs = []
    for g in range(groups.shape[1]):
        columns = groups[:, g].transpose(1, 2).flatten(0, 1)
        levels = best_levels(
            columns / quantizer.scale, w_hat[g], columns @ w[g].T, quantizer.scale, quantizer.low, quantizer.high
        )
        outputs.append((quantizer.scale * levels @ w_hat[g].T).unflatten(0, (len(x), -1)).transpose(1, 2))
    out = torch.cat(outputs, 1)
    if layer.bias is not None:
        out = out + layer.bias[:, None]
    return out.unflatten(2, layer.output_size(x)) if isinstance(layer, QuantConv2d) else out[:, :, 0]
