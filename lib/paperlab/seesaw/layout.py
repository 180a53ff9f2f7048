"""Layouts (DP, TP, PP) and what each rank of one holds: layers, heads, widths, bytes (§2, §4.1, Fig. 5).

Ranks are numbered replica by replica, in a replica stage by stage, in a stage by tensor-parallel rank. Query, key,
value, gate and up matrices are split by output (column-parallel), out and down by input (row-parallel); norms and the
biases of row-parallel matrices are replicated. The first stage holds the embedding, the last one the final norm and the
head, both split over the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from paperlab.transformer import ModelShape, element_bytes

_PATTERN = re.compile(r"(?:D([1-9]\d*))?(?:T([1-9]\d*))?(?:P([1-9]\d*))?", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Layout:
    """`dp` replicas, each of `pp` pipeline stages of `tp` tensor-parallel ranks; written `D2T2P2`, ones left out.

    >>> Layout.parse("t4p2").replica_ranks
    8
    >>> str(Layout(dp=2, pp=4))
    'D2P4'
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        for name in ("dp", "tp", "pp"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Layout: {name} is {value!r}; it must be a positive whole number")

    @classmethod
    def parse(cls, text: str | Layout) -> Layout:
        """Return the layout written as `P4`, `T2P2` or `D2T4`; ValueError says how to write one."""
        if isinstance(text, Layout):
            return text
        match = _PATTERN.fullmatch(text.strip())
        if not text.strip() or match is None:
            raise ValueError(f"layout is {text!r}; write D, T and P with a size each, such as P4, T2P2 or D2T4")
        return cls(*(int(size or 1) for size in match.groups()))

    def __str__(self) -> str:
        """Write the layout; one GPU is `T1`."""
        sizes = (("D", self.dp), ("T", self.tp), ("P", self.pp))
        return "".join(f"{letter}{size}" for letter, size in sizes if size > 1) or "T1"

    @property
    def replica_ranks(self) -> int:
        """GPUs of one replica, TP · PP."""
        return self.tp * self.pp

    @property
    def ranks(self) -> int:
        """All GPUs, DP · TP · PP."""
        return self.dp * self.replica_ranks

    @property
    def replica(self) -> Layout:
        """The layout of one replica."""
        return Layout(1, self.tp, self.pp)

    def check(self, model: ModelShape) -> Layout:
        """Return the layout; ValueError where `model` cannot be split this way."""
        if (model.mlp, model.norm) != ("gated", "rmsnorm"):
            raise ValueError(f"layout {self}: {model.name} has a {model.mlp} MLP; only Llama-style models are split")
        if self.pp > model.layers:
            raise ValueError(f"layout {self}: pp is {self.pp}; {model.name} has {model.layers} layers")
        for name, size in (("heads", model.heads), ("ffn", model.ffn)):
            if size % self.tp:
                raise ValueError(f"layout {self}: tp is {self.tp}; it must divide the {size} {name} of {model.name}")
        if model.kv_heads % self.tp and self.tp % model.kv_heads:
            raise ValueError(
                f"layout {self}: tp is {self.tp}; it must divide the {model.kv_heads} key/value heads of {model.name}, "
                "or be a multiple of them"
            )
        return self

    def layers(self, model: ModelShape, stage: int) -> range:
        """Return the layers of a stage: as even as possible, earlier stages take one more where PP does not divide."""
        return _part(model.layers, self.pp, stage)

    def shard(self, model: ModelShape, rank: int) -> Shard:
        """Return what `rank` of a replica (0 … TP·PP - 1) holds; ValueError for a rank or split that is none."""
        self.check(model)
        if not 0 <= rank < self.replica_ranks:
            raise ValueError(f"layout {self}: rank is {rank}; a replica has ranks 0 to {self.replica_ranks - 1}")
        stage, tp_rank = divmod(rank, self.tp)
        first = tp_rank * model.kv_heads // self.tp
        return Shard(
            model=model,
            layout=self,
            stage=stage,
            tp_rank=tp_rank,
            layers=self.layers(model, stage),
            query_heads=_part(model.heads, self.tp, tp_rank),
            kv_heads=range(first, first + max(1, model.kv_heads // self.tp)),
            ffn=_part(model.ffn, self.tp, tp_rank),
            vocab=_part(model.vocab, self.tp, tp_rank),
        )

    def shards(self, model: ModelShape) -> list[Shard]:
        """Return the shards of one replica by rank."""
        return [self.shard(model, rank) for rank in range(self.replica_ranks)]


@dataclass(frozen=True)
class Shard:
    """What one rank holds: ranges of layers, heads, MLP width and vocabulary rows of the whole model.

    Where TP exceeds the number of key/value heads, several ranks hold the same head.
    """

    model: ModelShape
    layout: Layout
    stage: int
    tp_rank: int
    layers: range
    query_heads: range
    kv_heads: range
    ffn: range
    vocab: range

    @property
    def rank(self) -> int:
        """The rank within the replica."""
        return self.stage * self.layout.tp + self.tp_rank

    @property
    def is_first(self) -> bool:
        """Whether this stage holds the embedding."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this stage holds the final norm and the head."""
        return self.stage == self.layout.pp - 1

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer on this rank."""
        model, query, kv = self.model, len(self.query_heads), len(self.kv_heads)
        columns = (query + 2 * kv) * model.head_dim
        attention = columns * (model.hidden + model.qkv_bias) + query * model.head_dim * model.hidden
        attention += model.out_bias * model.hidden + model.qk_norm * 2 * model.head_dim
        mlp = 3 * len(self.ffn) * model.hidden + model.mlp_bias * (2 * len(self.ffn) + model.hidden)
        return attention + mlp + model.norms_per_layer * model.hidden

    @property
    def parameters(self) -> int:
        """All parameters on this rank; tied embeddings count once on a rank that is first and last."""
        table = len(self.vocab) * self.model.hidden
        tables = self.is_first + self.is_last
        if self.model.tied_embeddings and tables == 2:
            tables = 1
        return len(self.layers) * self.layer_parameters + tables * table + self.is_last * self.model.hidden

    def weight_bytes(self, dtype: str) -> int:
        """Return the bytes of this rank's weights in `dtype`."""
        return self.parameters * element_bytes(dtype)

    def kv_token_bytes(self, dtype: str) -> int:
        """Return the bytes that one token's keys and values take on this rank."""
        return 2 * len(self.layers) * len(self.kv_heads) * self.model.head_dim * element_bytes(dtype)


def layer_matrices(model: ModelShape) -> int:
    """Return W, the parameters of one layer's matrices (Table 2)."""
    attention = model.hidden * (model.q_width + 2 * model.kv_width) + model.q_width * model.hidden
    return attention + 3 * model.hidden * model.ffn


def replica_layouts(model: ModelShape, ranks: int) -> Iterator[Layout]:
    """Yield every (TP, PP) with TP · PP = `ranks` that splits `model`, from P to T."""
    for tp in range(1, ranks + 1):
        if ranks % tp == 0:
            layout = Layout(1, tp, ranks // tp)
            try:
                yield layout.check(model)
            except ValueError:
                continue


def static_layouts(model: ModelShape, gpus: int) -> Iterator[Layout]:
    """Yield every (DP, TP, PP) on `gpus` GPUs that splits `model`."""
    for dp in range(1, gpus + 1):
        if gpus % dp == 0:
            for layout in replica_layouts(model, gpus // dp):
                yield Layout(dp, layout.tp, layout.pp)


def _part(total: int, parts: int, index: int) -> range:
    """Return the `index`-th of `parts` consecutive ranges of `total`, as even as possible, longer ones first."""
    small, longer = divmod(total, parts)
    start = index * small + min(index, longer)
    return range(start, start + small + (index < longer))
