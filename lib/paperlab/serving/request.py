"""What is asked of a server (`Request`) and how far it has come (`Sequence`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    `output_tokens` is where generation ends: exactly there in a simulation, at the latest there in the engine, which
    also stops at stop tokens. Policies never read it: a scheduler does not know how long an answer will be.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        where = f"request {self.request_id}"
        if not (math.isfinite(self.arrival_s) and self.arrival_s >= 0):
            raise ValueError(f"{where}: arrival_s is {self.arrival_s}; give a finite time from 0 on")
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{where}: {name} is {getattr(self, name)}; it must be at least 1")


@dataclass(slots=True, eq=False)
class Sequence:
    """A request being served. Only `Cluster` changes it.

    `known` tokens are the prompt and what was generated; `computed` of them have their keys and values in `blocks` of
    `pool`. A step over the last `pending` tokens yields the next token, whether they are a prompt, the rest of a
    prompt, one token to decode, or a sequence computed anew after a pre-emption.
    """

    request: Request
    computed: int = 0
    generated: int = 0
    pool: str | None = None  # where its blocks lie; None: it holds none
    blocks: list[int] = field(default_factory=list)
    lane: str | None = None  # the lane that is working on it right now
    preemptions: int = 0

    @property
    def known(self) -> int:
        """Prompt and generated tokens."""
        return self.request.prompt_tokens + self.generated

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one comes out."""
        return self.request.prompt_tokens + self.generated - self.computed

    @property
    def decoding(self) -> bool:
        """Whether one token's step yields the next token."""
        return self.generated > 0 and self.computed == self.request.prompt_tokens + self.generated - 1

    @property
    def arrival_order(self) -> tuple[float, int]:
        """Key that sorts sequences first come, first served."""
        return self.request.arrival_s, self.request.request_id
