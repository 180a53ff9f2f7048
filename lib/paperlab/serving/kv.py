"""Paged key/value memory: pools of equal blocks, as in PagedAttention (vLLM, SOSP 2023)."""

from __future__ import annotations

from collections.abc import Iterable


class OutOfBlocks(RuntimeError):
    """A pool was asked for more blocks than are free; a policy must pre-empt before that."""


class BlockPool:
    """A fixed number of blocks of `block_size` tokens each; hands out block ids.

    Freed blocks are reused last in, first out, so that a sequence's blocks are scattered after a while, as they are on
    a real server. Every block is either free or owned by exactly one sequence.
    """

    def __init__(self, name: str, blocks: int, block_size: int) -> None:
        """Make a pool with all blocks free; ValueError for sizes below 1."""
        if blocks < 1 or block_size < 1:
            raise ValueError(f"pool {name}: blocks is {blocks}, block_size {block_size}; both must be at least 1")
        self.name, self.blocks, self.block_size = name, blocks, block_size
        self._free = list(range(blocks - 1, -1, -1))

    @property
    def free(self) -> int:
        """Blocks nobody owns."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self.blocks - len(self._free)

    @property
    def usage(self) -> float:
        """Share of the pool in use, 0 to 1 (KV_u in the Nexus paper)."""
        return 1 - len(self._free) / self.blocks

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit into the empty pool."""
        return self.blocks * self.block_size

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks; raises `OutOfBlocks` and takes none where fewer are free."""
        if count > len(self._free):
            raise OutOfBlocks(f"pool {self.name}: {count} blocks wanted, {len(self._free)} of {self.blocks} free")
        if not count:
            return []
        taken = self._free[: -count - 1 : -1]
        del self._free[-count:]
        return taken

    def release(self, blocks: Iterable[int]) -> None:
        """Give blocks back."""
        self._free.extend(blocks)

    def check(self, owned: Iterable[list[int]]) -> None:
        """Raise AssertionError unless every block is free or owned exactly once."""
        seen = sorted([*self._free, *(block for blocks in owned for block in blocks)])
        assert seen == list(range(self.blocks)), f"pool {self.name}: blocks lost or owned twice"
