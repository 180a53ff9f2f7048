"""How much the GPU run measures: the full one and its rehearsal. The full one has not run on a GPU yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paperlab.nexus.studies.serving_study import ABLATION, LDC, MIXED, Scenario
from paperlab.transformer import ModelShape, preset

MONOLITHIC = ("vllm-like", "spf-chunked", "sglang-like")


@dataclass(frozen=True)
class Served:
    """A workload with the model that serves it and the systems that are compared on it."""

    scenario: Scenario
    model: ModelShape
    kv_tokens: int | None  # of the pool; None: as many as the paper's L20 has for this model
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """Sizes. Iterations: tokens of a batch, sequences of decode batches, tokens stored per decoding sequence.

    Whole systems: rates are `loads` times the measured capacity; requests arrive for `window_s`, so that low loads have
    fewer of them, and a run ends at `limit_s` at the latest. `length_factor` shortens the workload's texts.
    """

    model: ModelShape
    token_budget: int
    decode_batches: tuple[int, ...]
    motivation_batch: int  # of decoding sequences in Figs. 4 to 6, as in `saturation.PUBLISHED_DECODE`
    decode_context: int
    stored: tuple[int, ...]  # tokens of a prompt stored before the chunk beside which decode runs (Fig. 6a)
    repeats: int
    served: tuple[Served, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    window_s: float
    limit_s: float
    capacity_requests: int
    graphs_up_to: int  # sequences in decode batches whose graphs are captured before a run
    length_factor: float = 1.0


FULL = Scope(
    model=preset(LDC.model),
    token_budget=2048,
    decode_batches=(1, 16, 64),
    motivation_batch=20,
    decode_context=6000,
    stored=(0, 1000, 2000, 4000, 6000, 8000, 10_000),
    repeats=10,
    served=(
        Served(LDC, preset(LDC.model), None, (*MONOLITHIC, "nexus", "nexus-wo-sc")),
        Served(MIXED, preset(MIXED.model), None, (*MONOLITHIC, *reversed(ABLATION))),
    ),
    loads=(0.4, 0.8, 1.1, 1.6),
    seeds=(0, 1, 2),
    window_s=6.0,
    limit_s=60.0,
    capacity_requests=48,
    graphs_up_to=64,
)
_TINY = ModelShape(
    name="tiny", layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=128, max_positions=1024,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip


def smoke() -> Scope:
    """Return the rehearsal: every stage with a tiny model."""
    return replace(
        FULL,
        model=_TINY,
        token_budget=64,
        decode_batches=(1, 4),
        motivation_batch=4,
        decode_context=48,
        stored=(0, 64),
        repeats=2,
        served=tuple(replace(item, model=_TINY, kv_tokens=4096) for item in FULL.served),
        loads=(0.5, 1.5),
        seeds=(0,),
        window_s=0.1,
        limit_s=5.0,
        capacity_requests=4,
        graphs_up_to=4,
        length_factor=1 / 64,
    )
