"""How much work the experiments across systems do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments across systems; the defaults are the smallest that exercise every path."""

    workers: int = 1  # processes of a grid of simulations
    seeds: tuple[int, ...] = (0,)
    # Part A: Tempo in Mist
    families: tuple[str, ...] = ("gpt", "llama")  # of the bytes; the others have no LayerNorm, or one per block
    l4_sizes: tuple[str, ...] = ("7b",)
    a100_sizes: tuple[str, ...] = ("7b",)
    l4_seq_lens: tuple[int, ...] = (2048,)
    attentions: tuple[str, ...] = ("flash",)
    capacities_GiB: tuple[float, ...] = (8, 14, 24)  # memory per GPU of the sweep
    overheads: tuple[float, ...] = (0.0, 0.05)  # shares of the layer's compute
    # Part B: Nexus and Seesaw
    loads: tuple[float, ...] = (0.3, 1.3)  # of the offline throughput of Nexus's best replicas
    requests: int = 10  # of each trace
    map_requests: int = 12  # of each cell of the offline map
    outputs: tuple[int, ...] = (20, 200)  # tokens, of the map
    # Part C: bits in serving
    w_bits: tuple[int, ...] = (16, 8, 4)
    kv_bits: tuple[int, ...] = (16, 8, 4)
    bits_requests: int = 60
    low_rate_requests: int = 6
    accuracy_bits: tuple[int, ...] = (4,)
    accuracy_iterations: int = 20
    accuracy_images: int = 64

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value == ():
                raise ValueError(f"Config: {item.name} is empty; give at least one")
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Config: {item.name} is {value}; it must be at least 1")
        if min(self.overheads) != 0.0:
            raise ValueError(f"Config: overheads are {self.overheads}; one of them must be 0")
        if min(self.loads) <= 0:
            raise ValueError(f"Config: loads are {self.loads}; they must be positive")
        if not {16, 8, 4} <= set(self.w_bits) & set(self.kv_bits):
            raise ValueError("Config: w_bits and kv_bits must hold 16, 8 and 4, which claims compare")
