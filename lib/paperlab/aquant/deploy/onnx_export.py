"""A quantized model in ONNX, of standard operators alone.

There is no standard operator for many thresholds; comparisons with all thresholds of a channel, cast and summed, are
its standard form. Quantizers without a border are QuantizeLinear, convolutions ConvInteger on the codes. Between them,
sums of 32 bits are scaled in float32, as ONNX's own quantized graphs do; integers throughout are `integer.py`'s part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn

from paperlab.aquant.deploy.operators import window_of
from paperlab.aquant.deploy.thresholds import table_of
from paperlab.aquant.frame.graph import POOLS, SUMS
from paperlab.aquant.layers import QuantConv2d, QuantLayer
from paperlab.aquant.quantizer import ActivationQuantizer
from paperlab.lab.files import write_atomic

OPSET, IR_VERSION = 21, 10


def export_onnx(model: nn.Module, path: Path | str) -> onnx.ModelProto:
    """Write a quantized model as ONNX, from `image` (N, C, H, W) float32 to `logits`, and return it.

    Raises:
        ValueError: a border per kernel position (ONNX has no operator that unfolds patches), one that is not monotone
            or has no table, or an operation without a standard form; the message names the node.
    """
    network = model.network
    assert isinstance(network, fx.GraphModule)
    writer = _Writer(network)
    for node in network.graph.nodes:
        writer.write(node)
    nodes = list(network.graph.nodes)
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *_shape(node)[1:]])
        for name, node in (("image", nodes[0]), ("logits", _first(nodes[-1])))
    )
    graph = helper.make_graph(writer.nodes, "aquant", [image], [logits], writer.constants)
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(found, full_check=True)
    write_atomic(Path(path), found.SerializeToString())
    return found


class _Writer:
    """Nodes and constants of an ONNX graph while it grows; `codes` are tensors that exist as integer codes."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names: dict[str, str] = {}
        self.codes: dict[str, ActivationQuantizer] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}:{kind}", **attributes))
        return output

    def write(self, node: fx.Node) -> None:
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if node.op == "placeholder":
            self.names[node.name] = "image"
        elif node.op == "output":
            assert isinstance(node.args[0], fx.Node)
            self.add("Identity", [self.real(node.args[0])], "logits")
        elif isinstance(module, ActivationQuantizer):
            self._quantizer(node, module)
        elif isinstance(module, QuantConv2d):
            self._convolution(node, module)
        elif isinstance(module, QuantLayer):
            self._linear(node, module)
        else:
            self._operator(node, module)

    def real(self, node: fx.Node) -> str:
        """Return the name of a node's tensor as real numbers, dequantizing codes once."""
        quantizer = self.codes.get(node.name)
        if quantizer is None:
            return self.names[node.name]
        name = f"{node.name}_real"
        if name not in self.names.values():
            self.names[name] = self.add(
                "DequantizeLinear", [node.name, f"{node.name}.scale", f"{node.name}.zero"], name
            )
        return name

    def _quantizer(self, node: fx.Node, quantizer: ActivationQuantizer) -> None:
        name, x = node.name, self.real(_first(node))
        self.constant(f"{name}.scale", quantizer.scale.detach().cpu().numpy())
        self.constant(f"{name}.zero", int(quantizer.zero_point), np.uint8)
        if quantizer.border is None:
            full = f"{name}_full" if quantizer.bits < 8 else name
            self.add("QuantizeLinear", [x, f"{name}.scale", f"{name}.zero"], full)
            if quantizer.bits < 8:
                self.add("Min", [full, self.constant(f"{name}.top", quantizer.top, np.uint8)], name)
        else:
            self._comparisons(name, x, table_of(quantizer).staircase(), _shape(_first(node)))
        self.codes[name] = quantizer

    def _comparisons(self, name: str, x: str, staircase_RK: np.ndarray, shape: torch.Size) -> None:
        rows = staircase_RK.reshape(1, len(staircase_RK), *(1,) * (len(shape) - 2), -1)
        last = self.constant(f"{name}.last", [-1], np.int64)
        wide = self.add("Unsqueeze", [x, last], f"{name}_wide")
        reached = self.add("GreaterOrEqual", [wide, self.constant(f"{name}.thresholds", rows)], f"{name}_reached")
        counted = self.add("Cast", [reached], f"{name}_counted", to=TensorProto.INT32)
        total = self.add("ReduceSum", [counted, last], f"{name}_total", keepdims=0)
        self.add("Cast", [total], name, to=TensorProto.UINT8)

    def _convolution(self, node: fx.Node, conv: QuantConv2d) -> None:
        name, source = node.name, _first(node).name
        if conv.patch_quantizer is not None:
            raise ValueError(
                f"{name}: a border per kernel position has no standard form in ONNX; use granularity 'channel'"
            )
        if source not in self.codes:
            raise ValueError(f"{name}: reads {source}, which is not quantized")
        quantizer = conv.weight_quantizer
        weight = self.constant(f"{name}.weight", conv.codes().cpu().numpy(), np.uint8)
        zero = self.constant(f"{name}.weight_zero", quantizer.zero_point.cpu().numpy().ravel(), np.uint8)
        sums = self.add(
            "ConvInteger", [source, weight, f"{source}.zero", zero], f"{name}_sums", strides=conv.stride,
            pads=conv.padding * 2, dilations=conv.dilation, group=conv.groups, kernel_shape=conv.kernel_size,
        )  # fmt: skip
        real = self.add("Cast", [sums], f"{name}_float", to=TensorProto.FLOAT)
        scale = (quantizer.scale.detach().double() * self.codes[source].scale.detach().double()).cpu().numpy()
        scaled = self.add("Mul", [real, self.constant(f"{name}.scale", scale.reshape(1, -1, 1, 1))], f"{name}_scaled")
        self.names[name] = scaled
        if conv.bias is not None:
            bias = self.constant(f"{name}.bias", conv.bias.detach().cpu().numpy().reshape(1, -1, 1, 1))
            self.names[name] = self.add("Add", [scaled, bias], name)

    def _linear(self, node: fx.Node, linear: QuantLayer) -> None:
        """A linear layer reads averages of codes, which are no codes, so its weight alone stays integer."""
        name, quantizer = node.name, linear.weight_quantizer
        codes = self.constant(f"{name}.weight", linear.codes().cpu().numpy(), np.uint8)
        scale = self.constant(f"{name}.weight_scale", quantizer.scale.detach().cpu().numpy().ravel())
        zero = self.constant(f"{name}.weight_zero", quantizer.zero_point.cpu().numpy().ravel(), np.uint8)
        weight = self.add("DequantizeLinear", [codes, scale, zero], f"{name}_weight", axis=0)
        inputs = [self.real(_first(node)), weight]
        if linear.bias is not None:
            inputs.append(self.constant(f"{name}.bias", linear.bias.detach().cpu().numpy()))
        self.names[name] = self.add("Gemm", inputs, name, transB=1)

    def _operator(self, node: fx.Node, module: nn.Module | None) -> None:
        kind: object = type(module) if module is not None else node.target
        inputs = [self.real(operand) for operand in node.args if isinstance(operand, fx.Node)]
        name = node.name
        if kind in (nn.ReLU, F.relu, torch.relu, "relu"):
            self.add("Relu", inputs, name)
        elif kind in (nn.ReLU6, F.relu6):
            ends = [self.constant(f"{name}.{end}", value) for end, value in (("low", 0.0), ("high", 6.0))]
            self.add("Clip", [*inputs, *ends], name)
        elif kind in SUMS and len(inputs) == 2:
            self.add("Add", inputs, name)
        elif kind in POOLS or kind in (nn.AvgPool2d, F.avg_pool2d):
            window = window_of(node, module)
            extra = {} if kind in POOLS else {"count_include_pad": 1}
            self.add(
                "MaxPool" if kind in POOLS else "AveragePool", inputs, name, kernel_shape=window["kernel"],
                strides=window["stride"], pads=window["padding"] * 2, **extra,
            )  # fmt: skip
        elif kind in (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d) and _shape(node)[2:] == (1, 1):
            self.add("GlobalAveragePool", inputs, name)
        elif kind in (torch.mean, "mean") and len(_shape(node)) == 2:
            axes = self.constant(f"{name}.axes", [2, 3], np.int64)
            self.add("ReduceMean", [*inputs, axes], name, keepdims=0)
        elif kind in (nn.Flatten, torch.flatten, "flatten") and len(_shape(node)) == 2:
            self.add("Flatten", inputs, name)
        else:
            raise ValueError(f"{name}: {getattr(kind, '__name__', kind)} has no standard form here")
        self.names[name] = name


def _first(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _shape(node: fx.Node) -> torch.Size:
    """Return the shape of a node's tensor, which inserted quantizers take from what they quantize."""
    while "tensor_meta" not in node.meta:
        node = _first(node)
    return node.meta["tensor_meta"].shape
