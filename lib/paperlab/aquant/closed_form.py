"""The border without gradient descent: least squares over the calibration images, layer by layer (`aquant_cf`).

To first order a border moves an activation by minus its offset: `û = ũ - (a0 + a1 t + a2 t²)` for an activation ũ that
already carries the propagated error. The outputs of the layers that read the tensor are linear in û, so the
coefficients of all channels that bring them closest to the float network's outputs solve one linear system. That holds
weight error, propagated error and, since channels are solved together, global error (`theory.vector_border` is the case
of one channel).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from paperlab.aquant.border import Border
from paperlab.aquant.frame.graph import SUMS, TRANSPARENT, is_layer, kind
from paperlab.aquant.frame.prefix import Prefix, modes
from paperlab.aquant.frame.units import Unit, extract
from paperlab.aquant.quantizer import ActivationQuantizer

IMAGES = 128
RIDGE = 1e-4  # relative to the mean of the diagonal
_CHUNK = 32  # images whose columns are held at once


def fit_borders(network: fx.GraphModule, images: Tensor, terms: str = "all") -> None:
    """Set the border coefficients of every activation quantizer, front to back.

    `terms` says which errors the borders may know: "weight" alone, "propagated" as well, or "all", with global error.
    A sum that reads the tensor (the identity of a residual block) counts like a layer with the weight 1.

    Raises:
        ValueError: a border is shared or positional, where no such system holds.
    """
    prefix = Prefix(network, images[:IMAGES], (), activations=True)
    for node in prefix.nodes:
        prefix.advance(node)
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if getattr(module, "patch_quantizer", None) is not None:
            raise ValueError("aquant_cf: granularity is 'kernel_pos'; use 'channel'")
        if isinstance(module, ActivationQuantizer) and module.border is not None:
            spec = module.border.spec
            if spec.granularity != "channel" or spec.fusion != "none":
                raise ValueError(
                    f"aquant_cf: granularity {spec.granularity!r} with fusion {spec.fusion!r}; use 'channel'"
                )
            source = node.all_input_nodes[0]
            readers: list[nn.Module] = [extract(network, Unit("", node, path)) for path in _paths(network, node)]
            if any(kind(user, network) in SUMS for user in node.users):
                readers.append(nn.Identity())
            seen = prefix.quantized[source]
            fit(module, readers, seen if terms == "weight" else prefix.float_[source], seen, jointly=terms == "all")


def _paths(network: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, ...]]:
    """Yield the nodes from a quantizer to each layer that reads it, the layer included."""
    for user in node.users:
        if is_layer(user, network):
            yield (user,)
        elif kind(user, network) in TRANSPARENT:
            for path in _paths(network, user):
                yield (user, *path)


@torch.no_grad()
def fit(
    quantizer: ActivationQuantizer, readers: list[nn.Module], x_float: Tensor, x_seen: Tensor, jointly: bool = True
) -> None:
    """Solve for the coefficients of one quantizer's border.

    Args:
        quantizer: its border is overwritten.
        readers: affine maps of the tensor, with quantized weights.
        x_float: the tensor in the float network, (N, C, ...).
        x_seen: the same tensor behind the quantized prefix, not quantized itself.
        jointly: solve all channels together; else each channel sees its own share of the outputs alone, so that
            global error stays out.
    """
    border = quantizer.border
    assert border is not None
    if jointly:
        border.coefficients.copy_(_solve(quantizer, readers, x_float, x_seen, range(border.channels)))
        return
    for channel in range(border.channels):
        alone = torch.zeros(border.channels, device=x_float.device)
        alone[channel] = 1
        mask = alone.reshape(1, -1, *[1] * (x_float.dim() - 2))
        found = _solve(quantizer, readers, x_float * mask, x_seen * mask, range(channel, channel + 1))
        border.coefficients[:, channel] = found[:, 0]


def _solve(
    quantizer: ActivationQuantizer, readers: list[nn.Module], x_float: Tensor, x_seen: Tensor, channels: range
) -> Tensor:
    """Return the coefficients (degree + 1, channels) of least squares over all images."""
    assert quantizer.border is not None
    shape = quantizer.border.spec.degree + 1, len(channels)
    gram = torch.zeros(shape[0] * shape[1], shape[0] * shape[1], dtype=torch.float64, device=x_float.device)
    right = torch.zeros(len(gram), dtype=torch.float64, device=x_float.device)
    for start in range(0, len(x_float), _CHUNK):
        chunks = x_float[start : start + _CHUNK], x_seen[start : start + _CHUNK]
        columns, gap = _system(quantizer, quantizer.border, readers, *chunks, channels)
        gram += (columns @ columns.T).double()
        right += (columns @ gap).double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp(min=1e-12))
    return torch.linalg.solve(gram, right).reshape(shape).to(x_float.dtype)


def _system(
    quantizer: ActivationQuantizer, border: Border, readers: list[nn.Module], x_float: Tensor, x_seen: Tensor,
    channels: range,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what each coefficient does to the readers' outputs (coefficients, outputs), and what is missing there."""
    u = (x_seen / quantizer.scale).clamp(border.low, border.high)
    t = u / (border.high - border.low)
    blocks, gaps = [], []
    for reader in readers:
        zero = reader(torch.zeros_like(u))
        gaps.append((_float_output(reader, x_float) - reader(u * quantizer.scale)).flatten())
        rows = []
        for power in range(border.spec.degree + 1):
            for channel in channels:
                basis = torch.zeros_like(u)
                basis[:, channel] = t[:, channel] ** power
                rows.append((zero - reader(basis * quantizer.scale)).flatten())
        blocks.append(torch.stack(rows))
    return torch.cat(blocks, dim=1), torch.cat(gaps)


def _float_output(reader: nn.Module, x: Tensor) -> Tensor:
    with modes(reader, "float"):
        return reader(x)
