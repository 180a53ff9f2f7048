"""Weights: one copy of the model in memory that all ranks map, and each rank's shard, replaced in place (§4.1).

A rank copies exactly its slices of the host's tensors into one flat buffer. Old weights give way before new ones come:
where the shards of two layouts differ in size, the buffer is freed and allocated anew, otherwise it is overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from paperlab.seesaw.layout import Shard
from paperlab.transformer.model import Decoder

STAGING_BYTES = 32 << 20  # pinned, two of them: what a rank on a GPU holds on the host while it loads
# How matrices and their biases are cut: the dimension, and which range of the shard.
_CUTS = {
    "q_proj": (0, "query_heads"), "k_proj": (0, "kv_heads"), "v_proj": (0, "kv_heads"), "o_proj": (1, "query_heads"),
    "gate_proj": (0, "ffn"), "up_proj": (0, "ffn"), "down_proj": (1, "ffn"), "embed_tokens": (0, "vocab"),
    "lm_head": (0, "vocab"),
}  # fmt: skip


class Slice(NamedTuple):
    """Rows (`dim` 0) or columns (`dim` 1) `start` to `start + length` of a host tensor, at `offset` of the shard."""

    source: str
    name: str  # of the tensor in the shard's own module
    dim: int
    start: int
    length: int
    shape: tuple[int, ...]
    offset: int  # elements

    @property
    def elements(self) -> int:
        """Size of the slice."""
        return math.prod(self.shape)


Shapes = dict[str, tuple[int, ...]]


class HostWeights:
    """All tensors of a model in one shared buffer, one after the other."""

    def __init__(self, shapes: Shapes, dtype: torch.dtype, buffer: Tensor) -> None:
        """View `buffer` (bytes) as tensors of these shapes, by name and in their order."""
        flat, self.tensors, start = buffer.view(dtype), {}, 0
        for name, shape in shapes.items():
            end = start + math.prod(shape)
            self.tensors[name] = flat[start:end].view(shape)
            start = end

    @torch.no_grad()
    def fill(self, decoder: Decoder) -> None:
        """Copy the weights of `decoder` in."""
        for name, tensor in decoder.named_parameters():
            self.tensors[name].copy_(tensor)


def parameter_shapes(decoder: Decoder) -> Shapes:
    """Return the shapes of all weights by name, in order."""
    return {name: tuple(tensor.shape) for name, tensor in decoder.named_parameters()}


def host_bytes(shapes: Shapes, dtype: torch.dtype) -> int:
    """Return the bytes of the host's copy."""
    return dtype.itemsize * sum(map(math.prod, shapes.values()))


def slices(shard: Shard, shapes: Shapes) -> Iterator[Slice]:
    """Yield what `shard` takes of the host's tensors, in the order of its buffer."""
    offset = 0
    for name, shape in shapes.items():
        for own in _names(name, shard):
            piece = _cut(name, own, shape, shard, offset)
            offset += piece.elements
            yield piece


def _names(name: str, shard: Shard) -> list[str]:
    """Return under which names the shard holds a host tensor: none, one, or two where a table is tied."""
    part, _, rest = name.partition(".")
    if part == "layers":
        number, _, rest = rest.partition(".")
        local = int(number) - shard.layers.start
        return [f"layers.{local}.{rest}"] if int(number) in shard.layers else []
    if part == "embed_tokens":
        is_head = shard.is_last and shard.model.tied_embeddings
        return [name] if shard.is_first else ["lm_head.weight"] if is_head else []
    return [name] if shard.is_last else []


def _cut(source: str, name: str, shape: tuple[int, ...], shard: Shard, offset: int) -> Slice:
    dim, kind = _CUTS.get(source.split(".")[-2], (0, ""))
    if not kind or dim >= len(shape):  # norms, and the biases of row-parallel matrices
        return Slice(source, name, 0, 0, shape[0], shape, offset)
    part: range = getattr(shard, kind)
    unit = shard.model.head_dim if kind.endswith("heads") else 1
    cut = list(shape)
    cut[dim] = len(part) * unit
    return Slice(source, name, dim, part.start * unit, cut[dim], tuple(cut), offset)


class WeightMemory:
    """The buffer for a rank's weights, shared by its shards of all layouts, one of which is loaded at a time.

    `resident_bytes` is what it holds now, `peak_bytes` the most it ever held since the first load.
    """

    def __init__(self, shards: Mapping[str, Shard], device: torch.device, host: HostWeights) -> None:
        """`shards` are by layout; nothing is loaded yet."""
        self._host, self._device = host, device
        shapes = {name: tuple(tensor.shape) for name, tensor in host.tensors.items()}
        self._slices = {layout: tuple(slices(shard, shapes)) for layout, shard in shards.items()}
        self._sizes = {layout: sum(piece.elements for piece in found) for layout, found in self._slices.items()}
        dtype = next(iter(host.tensors.values())).dtype
        self._flat = torch.empty(max(self._sizes.values()), dtype=dtype, device=device)
        self.views = {layout: self._views(found) for layout, found in self._slices.items()}
        self._resize(0)
        self.peak_bytes = 0

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights on the device."""
        return self._flat.untyped_storage().nbytes()

    def load(self, layout: str) -> int:
        """Replace what is there by the shard of `layout`; returns the bytes read from the host's copy."""
        wanted = self._sizes[layout] * self._flat.element_size()
        if wanted != self.resident_bytes:
            self._resize(0)
            self._resize(wanted)
        self.peak_bytes = max(self.peak_bytes, self.resident_bytes)
        pairs = [(self._source(piece), self.views[layout][piece.name]) for piece in self._slices[layout]]
        copy = copy_staged if self._device.type == "cuda" else copy_directly
        return copy(pairs)

    def _views(self, pieces: tuple[Slice, ...]) -> dict[str, Tensor]:
        return {piece.name: self._flat[piece.offset :][: piece.elements].view(piece.shape) for piece in pieces}

    def _source(self, piece: Slice) -> Tensor:
        return self._host.tensors[piece.source].narrow(piece.dim, piece.start, piece.length)

    def _resize(self, nbytes: int) -> None:
        """Give the buffer another size; views stay in place."""
        self._flat.untyped_storage().resize_(nbytes)
        if nbytes == 0 and self._device.type == "cuda":
            torch.cuda.empty_cache()  # or the allocator keeps the old shard beside the new one


def copy_directly(pairs: list[tuple[Tensor, Tensor]]) -> int:
    """Copy sources to targets; returns the bytes."""
    for source, target in pairs:
        target.copy_(source)
    return sum(target.nbytes for _, target in pairs)


def copy_staged(pairs: list[tuple[Tensor, Tensor]], staging_bytes: int = STAGING_BYTES) -> int:
    """Copy host tensors to a GPU through two pinned buffers, one being filled while the other is sent.

    Rows go in runs that fit a buffer. Returns the bytes.
    """
    buffers = [torch.empty(staging_bytes, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    events = [torch.cuda.Event() for _ in range(2)]
    moved = turn = 0
    for source, target in pairs:
        rows = max(1, staging_bytes // max(1, target.nbytes // len(target)))
        for start in range(0, len(target), rows):
            part, place = source[start : start + rows], target[start : start + rows]
            events[turn].synchronize()
            if place.nbytes > staging_bytes:  # one row alone is larger
                place.copy_(part)
            else:
                pinned = buffers[turn][: place.nbytes].view(place.dtype).view(place.shape)
                pinned.copy_(part)
                place.copy_(pinned, non_blocking=True)
                events[turn].record()
            moved, turn = moved + place.nbytes, 1 - turn
    torch.cuda.current_stream().synchronize()
    return moved
