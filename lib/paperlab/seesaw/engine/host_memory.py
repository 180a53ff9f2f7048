"""What an engine keeps in memory that all ranks map: one copy of the weights, and a tier per replica."""

from __future__ import annotations

import torch

from paperlab.seesaw.engine.shared import SharedBuffer
from paperlab.seesaw.engine.weights import HostWeights, host_bytes, parameter_shapes
from paperlab.transformer.model import Decoder


class HostMemory:
    """The weights of a decoder, and `tier_bytes` for keys and values of each replica."""

    def __init__(self, decoder: Decoder, dtype: torch.dtype, replicas: int, tier_bytes: int) -> None:
        self.shapes = parameter_shapes(decoder)
        self.weights = SharedBuffer(host_bytes(self.shapes, dtype))
        HostWeights(self.shapes, dtype, self.weights.tensor).fill(decoder)
        self.tiers = [SharedBuffer(tier_bytes) for _ in range(replicas)]

    def unlink(self) -> None:
        """Take all names away, once every rank has mapped the memory."""
        for buffer in (self.weights, *self.tiers):
            buffer.unlink()

    def close(self) -> None:
        """Let go of the memory."""
        for buffer in (self.weights, *self.tiers):
            buffer.close()
