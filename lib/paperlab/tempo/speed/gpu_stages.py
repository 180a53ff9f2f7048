"""The stages of the GPU run and their cells, in order of value (E5-E7, E10, E12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch

from paperlab.lab.gpu_run import Cell, Stage
from paperlab.tempo.memory.capacity import CARDS, Card
from paperlab.tempo.speed import gpu_cells
from paperlab.tempo.speed.gpu_cells import EAGER, Bench
from paperlab.tempo.speed.kernel_speed import Sizes
from paperlab.tempo.speed.throughput import BASELINE, Timing
from paperlab.tempo.speed.workloads import Precision, Workload

RIVALS = (BASELINE, "Tempo", "SDPA", "Tempo on SDPA", "checkpoint", "eager, paper era")
GPT2_RIVALS = (BASELINE, "Tempo", "eager, fused GELU", "SDPA, fused GELU", "Tempo on SDPA")
TECHNIQUES = ("GELU", "LayerNorm", "attention")


@dataclass(frozen=True)
class Scope:
    """How much a run measures.

    `tokens` per step in comparisons at one batch size, twice as many in 16 bits, which run faster. Without TF32
    only the first `fp32_cards` are timed: the larger ones have TF32 and would take minutes.
    """

    bert: str
    gpt2: str
    roberta: str
    seq_lens: tuple[int, ...]
    cards: tuple[Card, ...]
    fp32_cards: int
    tokens: int
    precisions: tuple[Precision, ...]
    repeat: Timing
    sizes: Sizes
    compile_budgets: tuple[float, ...]

    def batch(self, workload: Workload) -> int:
        """Batch size of comparisons at one batch size."""
        tokens = self.tokens * (2 if workload.precision.endswith("bf16") else 1)
        return max(tokens // workload.seq_len, 1)


FULL = Scope(
    bert="BERT-Large",
    gpt2="GPT-2",
    roberta="RoBERTa-Large",
    seq_lens=(512, 128),
    cards=tuple(CARDS.values()),
    fp32_cards=2,
    tokens=8192,
    precisions=("fp32", "tf32", "autocast bf16", "bf16"),
    repeat=Timing(rounds=6, steps=2, warmup=2),
    sizes=Sizes(),
    compile_budgets=(1.0, 0.5),
)
_SMOKE = Scope(
    bert="tiny BERT",
    gpt2="tiny GPT-2",
    roberta="tiny BERT",
    seq_lens=(32,),
    cards=(),
    fp32_cards=1,
    tokens=64,
    precisions=("fp32", "bf16"),
    repeat=Timing(rounds=2, steps=1, warmup=1),
    sizes=Sizes(2, 16, 32, 2),
    compile_budgets=(),
)


def smoke(device: str) -> Scope:
    """Return the rehearsal: tiny models, and a card that on a GPU has room for the workspaces of cuBLAS."""
    card_bytes = (256 if device == "cuda" else 8) * 2**20
    return replace(_SMOKE, cards=(Card("small card", card_bytes, 0),))


def _cell(measure: Callable[..., pd.DataFrame], bench: Bench, workload: Workload, *args: Any) -> Cell:
    labels = [workload.model, f"S={workload.seq_len}", workload.precision]
    labels += [arg.name if isinstance(arg, Card) else str(arg) for arg in args if not isinstance(arg, tuple)]
    return Cell(", ".join(labels), partial(measure, bench, workload, *args))


def _memory_groups(scope: Scope) -> Iterator[tuple[Workload, Card, tuple[str, ...]]]:
    """Yield what shares a memory cap and is compared: BERT in fp32 on every card, the rest on the middle one."""
    for card in scope.cards:
        for seq_len in scope.seq_lens:
            yield Workload(scope.bert, seq_len), card, RIVALS
    middle = scope.cards[len(scope.cards) // 2]
    for precision in scope.precisions:
        if precision.endswith("bf16"):
            yield Workload(scope.bert, scope.seq_lens[0], precision), middle, RIVALS[:4]
    yield Workload(scope.gpt2, scope.seq_lens[0]), middle, GPT2_RIVALS
    if scope.roberta != scope.bert:
        yield Workload(scope.roberta, scope.seq_lens[0]), middle, RIVALS


def _largest_batch(scope: Scope, bench: Bench) -> Iterator[Cell]:
    for workload, card, arms in _memory_groups(scope):
        for arm in arms:
            yield _cell(gpu_cells.largest_batch, bench, workload, card, arm)


def _at_largest_batch(scope: Scope, bench: Bench) -> Iterator[Cell]:
    for workload, card, arms in _memory_groups(scope):
        if workload.precision != "fp32" or card in scope.cards[: scope.fp32_cards]:
            yield _cell(gpu_cells.at_largest_batch, bench, workload, card, arms)
        if workload.precision == "fp32" and "tf32" in scope.precisions:
            with_tf32 = Workload(workload.model, workload.seq_len, "tf32")
            yield _cell(gpu_cells.at_largest_batch, bench, with_tf32, card, arms)


def _one_batch(scope: Scope, bench: Bench) -> Iterator[Cell]:
    for seq_len in scope.seq_lens:
        for precision in scope.precisions:
            workload = Workload(scope.bert, seq_len, precision)
            arms = RIVALS[:4] if precision == "fp32" else RIVALS[:5] + TECHNIQUES
            yield _cell(gpu_cells.at_one_batch, bench, workload, scope.batch(workload), arms)
    for precision in scope.precisions[:2]:
        workload = Workload(scope.gpt2, scope.seq_lens[0], precision)
        yield _cell(gpu_cells.at_one_batch, bench, workload, scope.batch(workload), GPT2_RIVALS)


def _kernels(scope: Scope, bench: Bench) -> Iterator[Cell]:
    for dtype in (torch.float32, torch.bfloat16):
        name = f"{dtype}, B={scope.sizes.batch}, S={scope.sizes.seq}".removeprefix("torch.")
        yield Cell(name, partial(gpu_cells.kernels, bench, scope.sizes, dtype))


def _compiled(scope: Scope, bench: Bench) -> Iterator[Cell]:
    workload = Workload(scope.bert, scope.seq_lens[0], scope.precisions[-1])
    for arm in (EAGER, "SDPA"):
        for budget in scope.compile_budgets:
            yield _cell(gpu_cells.compiled, bench, workload, scope.batch(workload), arm, budget)


def _over_batches(scope: Scope, bench: Bench) -> Iterator[Cell]:
    for seq_len in scope.seq_lens:
        workload = Workload(scope.bert, seq_len, scope.precisions[1])
        batches = tuple(scope.batch(workload) * factor // 8 for factor in (1, 2, 4, 8, 16, 32))
        yield _cell(gpu_cells.over_batches, bench, workload, tuple(batch for batch in batches if batch))


_MAKERS: dict[str, tuple[float, Callable[[Scope, Bench], Iterator[Cell]]]] = {
    "largest_batch": (0.4, _largest_batch),
    "one_batch": (0.2, _one_batch),
    "at_largest_batch": (0.2, _at_largest_batch),
    "kernels": (0.15, _kernels),
    "over_batches": (0.05, _over_batches),
    "compiled": (0.0, _compiled),  # minutes of compilation, so only in time that is left over
}
STAGES = tuple(_MAKERS)


def stages(scope: Scope, bench: Bench) -> tuple[Stage, ...]:
    """Return all stages of a run, the most valuable first."""
    return tuple(Stage(name, share, tuple(make(scope, bench))) for name, (share, make) in _MAKERS.items())
