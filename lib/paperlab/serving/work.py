"""What a policy can have done: compute a batch, copy, reconfigure, pre-empt. And a batch's size in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from paperlab.serving.request import Sequence


class Chunk(NamedTuple):
    """The next `tokens` pending tokens of one sequence."""

    sequence: Sequence
    tokens: int


class StepShape(NamedTuple):
    """The numbers that fix what one iteration costs; prefill and decode apart, sums over the batch's sequences.

    A chunk of n tokens after L stored ones forms n·L + n·(n + 1)/2 query-key pairs.
    """

    prefill_tokens: int = 0
    prefill_context: int = 0  # stored tokens that the chunks attend to, without themselves
    prefill_pairs: int = 0
    decode_tokens: int = 0  # sequences that decode one token each (B_d)
    decode_context: int = 0  # tokens they attend to, the new one included
    logits: int = 0  # rows that pass the head: one per sequence whose next token comes out

    @property
    def tokens(self) -> int:
        """All tokens of the batch."""
        return self.prefill_tokens + self.decode_tokens

    @property
    def kind(self) -> str:
        """`prefill`, `decode` or `mixed`."""
        if not self.prefill_tokens:
            return "decode"
        return "mixed" if self.decode_tokens else "prefill"


def step_shape(chunks: Iterable[Chunk]) -> StepShape:
    """Return the shape of a batch that has not been computed yet."""
    prefill_tokens = prefill_context = prefill_pairs = decode_tokens = decode_context = logits = 0
    for sequence, tokens in chunks:
        stored, generated = sequence.computed, sequence.generated
        if tokens == 1 and generated and stored == sequence.request.prompt_tokens + generated - 1:  # it decodes
            decode_tokens += 1
            decode_context += stored + 1
            logits += 1
        else:
            prefill_tokens += tokens
            prefill_context += stored
            prefill_pairs += tokens * stored + tokens * (tokens + 1) // 2
            logits += tokens == sequence.pending
    return StepShape(prefill_tokens, prefill_context, prefill_pairs, decode_tokens, decode_context, logits)


@dataclass(frozen=True, slots=True)
class Compute:
    """Run one iteration over `chunks` with `share` of the lane's device (1: all of its multiprocessors).

    With a `target` the keys and values are written through to that pool, layer by layer while the iteration runs, and
    none stay on the device; each chunk must be a whole prompt then.
    """

    chunks: tuple[Chunk, ...]
    share: float = 1.0
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.chunks:
            raise ValueError("Compute: chunks is empty; leave the lane idle instead")
        if not 0 < self.share <= 1:
            raise ValueError(f"Compute: share is {self.share}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Copy:
    """Move the keys and values of `sequences` to the pool `target`: swap out, swap in, or transfer to a peer."""

    sequences: tuple[Sequence, ...]
    target: str

    def __post_init__(self) -> None:
        if not self.sequences:
            raise ValueError("Copy: sequences is empty; leave the lane idle instead")


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Bring the lane's device into the configuration `target`; nothing else may compute on it meanwhile."""

    target: str


Work = Compute | Copy | Reconfigure


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy wants for one idle lane: sequences whose memory is dropped first, then work, or nothing.

    `notes` are pairs of kind and detail for the log.
    """

    work: Work | None = None
    preempt: tuple[Sequence, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


IDLE = Decision()
