"""The interface of schedulers, the planning of one batch, and the registry of names.

One policy object drives both executors. It is asked for each idle lane whenever something has happened, looks at the
cluster without changing it, and returns a `Decision`.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.request import Sequence
from paperlab.serving.work import Chunk, Compute, Decision

if TYPE_CHECKING:
    from paperlab.serving.deployment import Deployment

DEVICE = "gpu0"
LINKS = ("host", "peer")  # what `simulate` and `LLM` connect devices by
SYSTEMS = ("paperlab.nexus", "paperlab.seesaw")  # packages that register policies of their own


@dataclass(frozen=True)
class Limits:
    """The caps of one iteration; the defaults are vLLM's for an API server on a GPU below 70 GiB."""

    token_budget: int = 2048  # tokens in a batch (max_num_batched_tokens)
    max_sequences: int = 256  # sequences in a batch (max_num_seqs)

    def __post_init__(self) -> None:
        for name in ("token_budget", "max_sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits: {name} is {getattr(self, name)}; it must be at least 1")


class Policy(ABC):
    """A scheduler. Subclasses keep what state they need, but change the cluster only through decisions."""

    name: ClassVar[str]
    lanes: tuple[Lane, ...] = (Lane("main", DEVICE),)

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def bind(self, deployment: Deployment) -> None:  # noqa: B027 - most policies need to know nothing
        """Learn where it will run, before the first request; a policy with a cost model prepares it here."""

    @abstractmethod
    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return what the idle `lane` should do now."""

    @property
    def own_links(self) -> list[str]:
        """Links besides `LINKS` that the lanes copy over: then only the system's own executors can run the policy."""
        return sorted({lane.resource for lane in self.lanes if lane.kind == "copy"} - set(LINKS))

    def refuse_own_links(self) -> None:
        """Raise ValueError where the policy needs links that `simulate` and `LLM` do not have."""
        if self.own_links:
            raise ValueError(
                f"{self.name}: copies over {', '.join(self.own_links)}, links of an executor of its own; "
                f"see the package {type(self).__module__.rpartition('.')[0]}"
            )


class BatchBuilder:
    """Plans one batch for one lane within the token budget, the sequence cap and the pool's free blocks.

    Nothing is allocated: the plan counts blocks, and the decision that comes out is carried out by the cluster.
    """

    def __init__(self, cluster: Cluster, lane: str, limits: Limits) -> None:
        pool = cluster.pool_of(lane)
        self.block_size, self.free_blocks = pool.block_size, pool.free
        self.tokens_left = limits.token_budget
        self.sequences_left = limits.max_sequences
        self.chunks: list[Chunk] = []
        self.preempted: list[Sequence] = []

    @property
    def full(self) -> bool:
        """Whether the token budget or the sequence cap is used up."""
        return self.tokens_left <= 0 or self.sequences_left <= 0

    def add(self, sequence: Sequence) -> bool:
        """Add as many pending tokens of `sequence` as the budget admits; False where they find no blocks."""
        # Written out, not by properties: simulations spend most of their time here.
        computed = sequence.computed
        tokens = sequence.request.prompt_tokens + sequence.generated - computed
        if tokens > self.tokens_left:
            tokens = self.tokens_left
        missing = -(-(computed + tokens) // self.block_size) - len(sequence.blocks)
        if missing > 0:
            if missing > self.free_blocks:
                return False
            self.free_blocks -= missing
        self.chunks.append(Chunk(sequence, tokens))
        self.tokens_left -= tokens
        self.sequences_left -= 1
        return True

    def add_preempting(self, sequence: Sequence, victims: list[Sequence]) -> bool:
        """Like `add`, but pre-empt from the end of `victims` until there is room; consumed victims are popped.

        `victims` are sequences with memory in this pool that are neither in flight nor in this batch, the least worthy
        last. Where it comes to `sequence` itself, that one is pre-empted and False returned.
        """
        while not self.add(sequence):
            if not victims:
                return False
            victim = victims.pop()
            self.preempt(victim)
            if victim is sequence:
                return False
        return True

    def preempt(self, sequence: Sequence) -> None:
        """Plan to drop the blocks of `sequence`, which thereby become free for this batch."""
        self.preempted.append(sequence)
        self.free_blocks += len(sequence.blocks)

    def decision(self, share: float = 1.0) -> Decision:
        """Return the planned decision."""
        work = Compute(tuple(self.chunks), share) if self.chunks else None
        return Decision(work, tuple(self.preempted))


PolicyFactory = Callable[..., Policy]
_FACTORIES: dict[str, PolicyFactory] = {}


def register(factory: PolicyFactory, name: str | None = None) -> PolicyFactory:
    """Make `factory` known under `name` (default: its `name` attribute); usable as a class decorator."""
    _FACTORIES[name or factory.name] = factory  # type: ignore[attr-defined]
    return factory


def policy_names() -> list[str]:
    """Return the names of all policies registered so far; a system's own appear once its package is imported."""
    importlib.import_module("paperlab.serving.policies")
    return sorted(_FACTORIES)


def make_policy(name: str, **options: Any) -> Policy:
    """Build the policy called `name`, such as `vllm-like`; `options` go to its constructor.

    A system's policies register when its package is imported, which happens here for names not known yet.

    Raises:
        ValueError: no such policy; the message lists the names.
    """
    if name not in policy_names():
        for package in SYSTEMS:
            if importlib.util.find_spec(package) is not None:
                importlib.import_module(package)
    if name not in _FACTORIES:
        raise ValueError(f"unknown policy {name!r}; known: {', '.join(policy_names())}")
    return _FACTORIES[name](**options)
