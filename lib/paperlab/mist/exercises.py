"""Checkers of the exercises in `20_mist_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paperlab.lab.exercises import expect
from paperlab.mist.clusters import cluster, interference
from paperlab.mist.cost.evaluate import evaluate
from paperlab.mist.cost.pipeline import iteration_s, simulate
from paperlab.mist.models import gpt
from paperlab.mist.plan import Plan, StagePlan

_MODEL = gpt(hidden=256, layers=4, heads=4, vocab=512, seq_len=128)
_STATES = ("weights", "gradients", "optimizer states")


def check_state_bytes(state_bytes: Callable[[int, int, int], float]) -> None:
    """Check `state_bytes(parameters, dp, zero)`: what one rank stores of weights, gradients, optimizer states."""
    block_parameters = 12 * 256**2 + 4 * 256
    for dp, zero in ((1, 0), (4, 0), (4, 1), (4, 2), (8, 3)):
        stage = StagePlan(4, 0, 1, dp, 1, zero)
        where = cluster("l4", 1, dp)
        found = evaluate(Plan(_MODEL, where.size, dp, 1, (stage,)), where)[0].worst.parts
        right = sum(float(np.squeeze(found[name])) for name in _STATES)
        given = state_bytes(4 * block_parameters, dp, zero)
        expect(given > 0, "weights and gradients have 2 bytes per parameter, optimizer states 12")
        expect(zero < 3 or given < right * 1.01, "ZeRO-3 splits weights, too, over the data-parallel ranks")
        expect(zero == 0 or given < 15.99 * 4 * block_parameters, "from ZeRO-1 on, optimizer states are split")
        expect(abs(given / right - 1) < 1e-9, f"dp {dp}, ZeRO-{zero}: {given:.0f} bytes, it should be {right:.0f}")


def check_together(together: Callable[[float, float, float, float], float]) -> None:
    """Check `together(x, y, slow_x, slow_y)`: seconds until two operations, started at once, are both done."""
    factors = {"CG": (1.1, 1.5), "CH": (1.0, 1.0), "GH": (2.0, 3.0)}
    base = interference("l4")
    for pair, slow in factors.items():
        model = base.of({**_subsets(base.factors), pair: slow})
        for x, y in ((1.0, 1.0), (2.0, 0.5), (0.5, 2.0), (3.0, 0.0)):
            alone = dict.fromkeys("CGHD", 0.0) | {pair[0]: x, pair[1]: y}
            right, given = float(model.time_s(*alone.values())), together(x, y, *slow)
            expect(given >= max(x, y) - 1e-12, "no overlap makes an operation faster than it is alone")
            expect(y > 0 or abs(given - x) < 1e-9, "an operation alone is not slowed down")
            hint = "when the first is done, what is left of the other goes on at full speed"
            expect(abs(given / right - 1) < 1e-9, f"{hint}: {given:.3f} instead of {right:.3f} s")


def _subsets(factors: Sequence[float]) -> dict[str, list[float]]:
    from paperlab.mist.cost.interference import SUBSETS

    rest = list(factors)
    return {subset: [rest.pop(0) for _ in subset] for subset in SUBSETS}


def check_order(order: Callable[[int, int, int], list[tuple[str, int]]]) -> None:
    """Check `order(stage, stages, accumulation)`: a stage's passes in 1F1B, as ("forward" or "backward", number)."""
    for stages in (1, 2, 4):
        for stage in range(stages):
            found = order(stage, stages, 8)
            expect(len(found) == 16, f"stage {stage} of {stages}: 8 micro-batches make 16 passes, not {len(found)}")
            depth = deepest = 0
            seen: dict[str, list[int]] = {"forward": [], "backward": []}
            for phase, number in found:
                seen[phase].append(number)
                expect(phase == "forward" or number in seen["forward"], f"backward {number} comes before its forward")
                depth += 1 if phase == "forward" else -1
                deepest = max(deepest, depth)
            expect(seen["forward"] == seen["backward"] == list(range(8)), "each pass once, micro-batches in order")
            expect(
                deepest == stages - stage,
                f"stage {stage} of {stages} holds {deepest} micro-batches at most; 1F1B needs {stages - stage}",
            )


def check_iteration_time(iteration_time: Callable[[float, Sequence[float], int], float]) -> None:
    """Check `iteration_time(t, d, accumulation)`: seconds of an iteration of stages of equal t and extra times d."""
    for t, d, accumulation in ((1.0, (0.0,), 4), (1.0, (0.0, 0.0), 4), (2.0, (1.0, 0.3, 0.2, 0.9), 8)):
        stages = len(d)
        right = iteration_s(simulate([t / 3] * stages, [2 * t / 3] * stages, d, [0.0] * stages, accumulation))
        given = iteration_time(t, d, accumulation)
        expect(stages == 1 or given > accumulation * t, "the first micro-batch still has to travel through all stages")
        expect(
            abs(given / right - 1) < 1e-9,
            f"{given:.3f} s, the event simulation says {right:.3f} s; stage i may spend d_i while it waits for input",
        )


def check_front(front: Callable[[list[tuple[float, float]]], list[tuple[float, float]]]) -> None:
    """Check `front(points)`: the points (t, d) that no other one matches or beats in both."""
    generator = np.random.default_rng(0)
    for count in (1, 5, 60):
        points = [(float(t), float(12 - t + more)) for t, more in generator.integers(0, 12, (count, 2))]
        right = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
        found = front(points)
        expect(set(found) <= set(points), "return some of the points given")
        expect(set(found) >= right, f"{len(right - set(found))} points are missing that nothing beats")
        expect(set(found) <= right, f"{len(set(found) - right)} points are beaten by another one")
