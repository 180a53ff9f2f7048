"""Right answers pass, and typical wrong ones get a hint that names the mistake."""

from __future__ import annotations

import pytest

from paperlab.lab.exercises import ExerciseError
from paperlab.seesaw import exercises


def all_reduce_s(size, gpus, bus):
    return 2 * (gpus - 1) / gpus * size / bus


def weight_reads(model, tp, pp):
    return pp * model / (tp * pp)


def max_batch(memory, weights, gpus, replicas, sequence):
    return replicas * max(0, (gpus * memory - weights) // sequence)


def transitions(prompts, host):
    cycles, used = 1, 0
    for tokens in prompts:
        if used + tokens > host:
            cycles, used = cycles + 1, 0
        used += tokens
    return 2 * cycles - 1


def slab(heads, tokens, tp, rank):
    return rank * heads // tp * tokens, heads // tp * tokens


def test_right_answers_pass():
    exercises.check_all_reduce(all_reduce_s)
    exercises.check_decode_passes(weight_reads)
    exercises.check_max_batch(max_batch)
    exercises.check_transitions(transitions)
    exercises.check_slice(slab)


@pytest.mark.parametrize(("check", "answer", "hint"), [
    (exercises.check_all_reduce, lambda size, gpus, bus: size / bus if gpus > 1 else 0.0, "not the whole tensor once"),
    (exercises.check_all_reduce, lambda size, gpus, bus: size / bus, "one GPU has nobody"),
    (exercises.check_decode_passes, lambda model, tp, pp: model / (tp * pp), "cut into PP groups"),
    (exercises.check_max_batch, lambda m, w, g, r, s: r * ((g * m - w) // s), "not for fewer than nobody"),
    (exercises.check_max_batch, lambda m, w, g, r, s: max(0, (g * m - w) // s), "every replica holds its own"),
    (exercises.check_transitions, lambda prompts, host: transitions(prompts, host) + 1, "no way back"),
    (exercises.check_transitions, lambda prompts, host: 1, "playing it through"),
    (exercises.check_slice, lambda heads, tokens, tp, rank: (rank * tokens, tokens), "its elements are"),
])  # fmt: skip
def test_wrong_answers_get_a_hint(check, answer, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(answer)
