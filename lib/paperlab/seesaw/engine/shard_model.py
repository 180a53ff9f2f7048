"""The model of one rank: the decoder's own blocks with fewer rows, and an all-reduce after each row-parallel matrix.

Legend: N tokens of the batch, H hidden, L rows whose next token comes out, V vocabulary rows of this rank.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paperlab.seesaw.engine.communicators import Links
from paperlab.seesaw.layout import Shard
from paperlab.transformer.model import Attend, Block, Rotary, rotary_frequencies


class RowParallel(nn.Module):
    """A matrix split by input: every rank's product is a part of the sum; the bias is added once, after it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, links: Links) -> None:
        super().__init__()
        self.weight, self.bias, self.links = weight, bias, links

    def forward(self, x: Tensor) -> Tensor:
        """Return the whole product on every rank."""
        y = self.links.all_reduce(F.linear(x, self.weight))
        return y if self.bias is None else y + self.bias


class ShardModel:
    """One stage's layers, and the embedding or the head where they belong, over the tensors of a shard."""

    def __init__(self, shard: Shard, tensors: Mapping[str, Tensor], links: Links) -> None:
        """`tensors` are by name within the shard, as `weights.slices` gives them."""
        self.shard, self.links, self.tensors = shard, links, tensors
        self.blocks = [_block(shard, index, tensors, links) for index in range(len(shard.layers))]
        some = next(iter(tensors.values()))
        self.dtype, self.device = some.dtype, some.device
        self.marks_s: list[float] = []  # when each layer of the last pass began
        self._frequencies = rotary_frequencies(shard.model, self.device)

    def expect(self, tokens: int) -> None:
        """Tell the links that hidden states of so many tokens will come from the stage before, if there is one."""
        if not self.shard.is_first:
            self.links.expect((1, tokens, self.shard.model.hidden), self.dtype)

    def hidden(self, ids_1N: Tensor) -> Tensor:
        """Return this stage's input: embeddings, or what the stage before sends."""
        if not self.shard.is_first:
            size = (*ids_1N.shape, self.shard.model.hidden)
            return self.links.receive(torch.empty(size, dtype=self.dtype, device=self.device))
        table_VH, vocab = self.tensors["embed_tokens.weight"], self.shard.vocab
        if self.links.size == 1:
            return F.embedding(ids_1N, table_VH)
        own_1N = (ids_1N >= vocab.start) & (ids_1N < vocab.stop)
        x_1NH = F.embedding((ids_1N - vocab.start) * own_1N, table_VH) * own_1N[..., None]
        return self.links.all_reduce(x_1NH)

    def layers(self, x_1NH: Tensor, positions_1N: Tensor, attend: Attend) -> Tensor:
        """Return the hidden states after this stage's layers; `attend` counts layers from the stage's first."""
        rotary, self.marks_s = self._rotary(positions_1N), []
        for layer, block in enumerate(self.blocks):
            self.marks_s.append(time.perf_counter())
            x_1NH = block(x_1NH, rotary, layer, attend)
        return x_1NH

    def pass_on(self, x_1NH: Tensor) -> None:
        """Send the hidden states to the next stage."""
        self.links.send(x_1NH)

    def next_tokens(self, x_1NH: Tensor, rows: Sequence[int]) -> list[int]:
        """Return the most likely token after each of `rows`; the last stage alone can."""
        model = self.shard.model
        x_LH = F.rms_norm(x_1NH[0, list(rows)], (model.hidden,), self.tensors["norm.weight"], model.norm_eps)
        tied = model.tied_embeddings and self.shard.is_first
        logits_LV = F.linear(x_LH, self.tensors["embed_tokens.weight" if tied else "lm_head.weight"])
        best_L, index_L = logits_LV.max(-1)
        # Ranks compare their best; float64 holds any index exactly. The first of equals wins, as in a whole argmax.
        own_2L = torch.stack((best_L.double(), index_L.double() + self.shard.vocab.start))
        all_T2L = self.links.all_gather(own_2L)
        winner_L = all_T2L[:, 0].argmax(0)
        return all_T2L[winner_L, 1, torch.arange(len(winner_L), device=winner_L.device)].long().tolist()

    def _rotary(self, positions_1N: Tensor) -> Rotary:
        angles = (positions_1N[..., None].float() * self._frequencies).repeat(1, 1, 2)[:, :, None]
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


def _block(shard: Shard, index: int, tensors: Mapping[str, Tensor], links: Links) -> Block:
    block = Block(replace(shard.model, heads=1, kv_heads=1, ffn=1))  # the weights bring their own sizes
    prefix = f"layers.{index}."
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            owner, _, leaf = name.removeprefix(prefix).rpartition(".")
            block.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    attention, mlp = block.self_attn, block.mlp
    attention.o_proj = RowParallel(attention.o_proj.weight, attention.o_proj.bias, links)  # type: ignore[assignment]
    mlp.down_proj = RowParallel(mlp.down_proj.weight, mlp.down_proj.bias, links)  # type: ignore[assignment]
    return block.eval()
