"""Right answers pass, and typical wrong ones get a hint that names the mistake."""

from __future__ import annotations

import pytest

from paperlab.lab.exercises import ExerciseError
from paperlab.nexus import exercises


def pairs(stored, tokens):
    return tokens * stored + tokens * (tokens + 1) // 2


def effective_share(share, knee, decay):
    return share if share <= knee else knee + decay * (share - knee)


def bandwidth(p_attn, decode, attention, dense):
    return p_attn * decode / (decode + attention) + (1 - p_attn) * decode / (decode + dense)


def split(decode_s, beta):
    percent = 1
    while percent < 99 and decode_s(1 - (percent + 1) / 100) <= beta * decode_s(1.0):
        percent += 1
    return percent


def order(prompts, now, gamma):
    return sorted(range(len(prompts)), key=lambda i: prompts[i][0] - gamma * (now - prompts[i][1]))


def chunks(remaining, budget):
    given = []
    for tokens in remaining:
        given.append(min(tokens, budget))
        budget -= given[-1]
    return given


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_pairs, pairs),
        (exercises.check_effective_share, effective_share),
        (exercises.check_decode_bandwidth, bandwidth),
        (exercises.check_split, split),
        (exercises.check_spf, order),
        (exercises.check_chunks, chunks),
    ],
)
def test_right_answers_pass(check, answer):
    check(answer)


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (exercises.check_pairs, lambda stored, tokens: tokens * (stored + tokens), "not those after it"),
        (exercises.check_effective_share, lambda share, knee, decay: share, "grows `decay` times"),
        (exercises.check_decode_bandwidth, lambda p, d, a, m: d / (d + a + m), "only its attention traffic"),
        (exercises.check_split, lambda decode_s, beta: 99, "times as slow"),
        (exercises.check_split, lambda decode_s, beta: 1, "is too"),
        (
            exercises.check_spf,
            lambda prompts, now, gamma: sorted(range(12), key=lambda i: prompts[i][0]),
            "worth gamma",
        ),
        (exercises.check_chunks, lambda remaining, budget: [t if t <= budget else 0 for t in remaining], "forever"),
    ],
)
def test_wrong_answers_get_a_hint(check, answer, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(answer)
