"""The stages of Seesaw's GPU run and their cells, in order of value. They have not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

from paperlab.lab.gpu_run import Cell, Stage
from paperlab.seesaw.gpu import copies, replay
from paperlab.seesaw.gpu.bench import Bench

POLICIES = ("seesaw", "static-prefill-first", "static-chunked")


def _overlap(bench: Bench) -> Iterator[Cell]:
    for tokens in bench.scope.prompt_tokens:
        yield Cell(f"{tokens} tokens", partial(copies.overlap, bench, tokens))


def _reload(bench: Bench) -> Iterator[Cell]:
    yield Cell("every source", partial(copies.reload, bench))


def _kv_copies(bench: Bench) -> Iterator[Cell]:
    for tp in bench.scope.tps:
        yield Cell(f"TP {tp}", partial(copies.kv_copies, bench, tp))


def _shard_replay(bench: Bench) -> Iterator[Cell]:
    for model, tp in product(bench.scope.replayed, bench.scope.tps):
        yield Cell(f"{model.name}, TP {tp}", partial(replay.shard_replay, bench, model, tp))


def _one_rank(bench: Bench) -> Iterator[Cell]:
    for policy in POLICIES:
        yield Cell(policy, partial(replay.one_rank, bench, policy))


def _shared_gpu(bench: Bench) -> Iterator[Cell]:
    for prefill, decode in product(("P2", "T2"), repeat=2):
        yield Cell(f"{prefill}→{decode}", partial(replay.shared_gpu, bench, prefill, decode))


_MAKERS: dict[str, tuple[float, Callable[[Bench], Iterator[Cell]]]] = {
    "overlap": (0.2, _overlap),
    "reload": (0.1, _reload),
    "kv_copies": (0.1, _kv_copies),
    "shard_replay": (0.25, _shard_replay),
    "one_rank": (0.25, _one_rank),
    "shared_gpu": (0.1, _shared_gpu),
}
STAGES = tuple(_MAKERS)


def stages(bench: Bench) -> tuple[Stage, ...]:
    """Return all stages of a run, the most valuable first."""
    return tuple(Stage(name, share, tuple(make(bench))) for name, (share, make) in _MAKERS.items())
