"""Quantized layers in the place of float ones, and a quantizer on every tensor that such a layer reads.

The quantizer belongs to the reader: block input tensors are quantized once, for convolution, shortcut and identity
alike; inner tensors before the next layer; sums and the network's output never. All methods share these points.
"""

from __future__ import annotations

from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.frame.graph import ACTIVATIONS, POOLS, TRANSPARENT, is_layer, kind, trace
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.layers import QuantConv2d, QuantLayer, QuantLinear
from paperlab.aquant.quantizer import ActivationQuantizer

IMAGE_BITS = 8  # images are stored with 8 bits


def prepare(model: nn.Module, recipe: Recipe, example: Tensor) -> fx.GraphModule:
    """Return the folded graph of `model` with quantizers whose scales are still NaN.

    Args:
        model: convolutions, linear layers, batch norms, ReLUs, pools and sums.
        recipe: bits, border and the stem/head rule.
        example: one batch of images, for shapes.

    Raises:
        ValueError: the model holds something unsupported.
    """
    network = trace(model)
    ShapeProp(network).propagate(example)
    layers = [node for node in network.graph.nodes if is_layer(node, network)]
    stem, head = layers[0], layers[-1]
    for node in layers:
        exempt = recipe.stem_head != "none" and node in (stem, head)
        _quantize_layer(network, node, 8 if exempt else recipe.w_bits)
    for source, readers in _sources(network, layers).items():
        bits = _activation_bits(network, source, readers, stem, head, recipe)
        _insert(network, source, readers, bits, recipe)
    network.graph.lint()
    network.recompile()
    return network.to(example.device).eval()


def quantizers_of(module: nn.Module) -> dict[str, ActivationQuantizer]:
    """Return every activation quantizer below `module` by name."""
    return {name: item for name, item in module.named_modules() if isinstance(item, ActivationQuantizer)}


def layers_of(module: nn.Module) -> dict[str, QuantLayer]:
    """Return every quantized layer below `module` by name."""
    return {name: item for name, item in module.named_modules() if isinstance(item, QuantLayer)}


def _quantize_layer(network: fx.GraphModule, node: fx.Node, bits: int) -> None:
    layer = network.get_submodule(str(node.target))
    new = QuantConv2d(layer, bits) if isinstance(layer, nn.Conv2d) else QuantLinear(layer, bits)  # type: ignore[arg-type]
    network.set_submodule(str(node.target), new)


def _source(network: nn.Module, layer: fx.Node) -> fx.Node:
    """Return the tensor whose quantization gives `layer` its integers: its input, before averages and reshapes."""
    node = layer.args[0]
    while kind(node, network) in TRANSPARENT:  # type: ignore[arg-type]
        node = node.args[0]  # type: ignore[union-attr]
    assert isinstance(node, fx.Node)
    return node


def _sources(network: nn.Module, layers: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    found: dict[fx.Node, list[fx.Node]] = {}
    for layer in layers:
        found.setdefault(_source(network, layer), []).append(layer)
    return found


def _activation_bits(
    network: nn.Module, source: fx.Node, readers: list[fx.Node], stem: fx.Node, head: fx.Node, recipe: Recipe
) -> int:
    if source.op == "placeholder":
        return IMAGE_BITS
    if recipe.stem_head != "none" and head in readers:
        return 8
    if recipe.stem_head == "brecq" and _made_by(network, source) is stem:
        return 8
    return recipe.a_bits


def _made_by(network: nn.Module, node: fx.Node) -> fx.Node:
    """Return the operator behind the activation function and pool that produced `node`."""
    while kind(node, network) in (*ACTIVATIONS, *POOLS):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _insert(network: fx.GraphModule, source: fx.Node, readers: list[fx.Node], bits: int, recipe: Recipe) -> None:
    name = f"quantize_{source.name}"
    quantizer = ActivationQuantizer(bits, recipe.ste)
    channels = source.meta["tensor_meta"].shape[1]
    bordered = recipe.border is not None and source.op != "placeholder" and bits == recipe.a_bits
    groups = {_layer(network, reader).groups for reader in readers}
    network.add_submodule(name, quantizer)
    patches: list[fx.Node] = []
    if bordered and recipe.border is not None:
        if recipe.border.granularity == "kernel_pos":
            for node in [node for node in readers if node.args[0] is source]:
                layer = _layer(network, node)
                if isinstance(layer, QuantConv2d):
                    layer.patch_quantizer = _patch_quantizer(layer, quantizer, recipe.border)
                    patches.append(node)
        else:
            quantizer.border = Border(recipe.border, channels, groups=groups.pop() if len(groups) == 1 else 1)
    with network.graph.inserting_after(source):
        node = network.graph.call_module(name, (source,))
    for user in list(source.users):
        if user is not node and user not in patches:
            user.replace_input_with(source, node)
    if not node.users:
        network.graph.erase_node(node)
        network.delete_submodule(name)


def _layer(network: nn.Module, node: fx.Node) -> QuantConv2d | QuantLinear:
    layer = network.get_submodule(str(node.target))
    assert isinstance(layer, QuantConv2d | QuantLinear)
    return layer


def _patch_quantizer(conv: QuantConv2d, shared: ActivationQuantizer, border: BorderSpec) -> ActivationQuantizer:
    """Return a convolution's quantizer with a border per kernel position, on the scale that all readers share."""
    patch = ActivationQuantizer(shared.bits, shared.ste)
    patch.scale = shared.scale
    patch.border = Border(border, conv.in_channels, conv.kernel_size[0] * conv.kernel_size[1])
    return patch
