"""Checkers of the exercises in `10_nexus_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from paperlab.lab.exercises import expect


def check_pairs(pairs: Callable[[int, int], int]) -> None:
    """Check `pairs(stored, tokens)`: query-key pairs of a chunk of `tokens` after `stored` tokens."""
    for stored, tokens in ((0, 1), (0, 5), (7, 1), (30, 12)):
        right = sum(1 for query in range(stored, stored + tokens) for key in range(query + 1))
        given = pairs(stored, tokens)
        expect(
            tokens == 1 or given != tokens * (stored + tokens),
            "a token sees those before it and itself, not those after it",
        )
        expect(given == right, f"for {tokens} tokens after {stored}: {given}, but counting them gives {right}")


def check_effective_share(effective_share: Callable[[float, float, float], float]) -> None:
    """Check `effective_share(share, knee, decay)`: the speed that a share of the multiprocessors reaches."""
    for knee, decay in ((0.6, 0.1), (0.3, 0.5), (0.9, 0.0)):
        for share in (0.1, knee, 0.95, 1.0):
            given = effective_share(share, knee, decay)
            below = share <= knee
            hint = "up to the knee it is the share itself" if below else "above the knee it grows `decay` times as fast"
            right = min(share, knee) + decay * max(0.0, share - knee)
            expect(abs(given - right) < 1e-9, f"share {share}, knee {knee}, decay {decay}: {given}; {hint}")


def check_decode_bandwidth(bandwidth: Callable[[float, float, float, float], float]) -> None:
    """Check `bandwidth(p_attn, decode, attention, dense)`: the part of the bandwidth left to decode's attention."""
    expect(abs(bandwidth(0.3, 5.0, 0.0, 0.0) - 1) < 1e-9, "with no traffic of prefill, decode has all bandwidth")
    expect(
        abs(bandwidth(1.0, 1.0, 3.0, 9.0) - 0.25) < 1e-9,
        "while prefill is in attention (p_attn = 1), only its attention traffic competes, byte for byte",
    )
    expect(
        abs(bandwidth(0.0, 1.0, 3.0, 9.0) - 0.1) < 1e-9,
        "while prefill is in its dense layers (p_attn = 0), only their traffic competes",
    )
    expect(abs(bandwidth(0.5, 1.0, 3.0, 9.0) - 0.175) < 1e-9, "weigh both cases by how often they occur")


def check_split(split: Callable[[Callable[[float], float], float], int]) -> None:
    """Check `split(decode_s, beta)`: the largest prefill percentage, 1 to 99, that keeps decode within its slack."""
    for floor_s, per_share in ((1.0, 0.05), (0.2, 0.3), (1.0, 0.0)):

        def decode_s(share: float, floor_s: float = floor_s, per_share: float = per_share) -> float:
            return floor_s + per_share / share

        for beta in (1.05, 1.1, 1.5):
            allowed = [percent for percent in range(1, 100) if decode_s(1 - percent / 100) <= beta * decode_s(1.0)]
            given = split(decode_s, beta)
            expect(given in range(1, 100), f"return a percentage from 1 to 99, not {given}")
            slow = decode_s(1 - given / 100) / decode_s(1.0)
            expect(
                not allowed or given <= max(allowed), f"{given} % makes decode {slow:.3f} times as slow, beta is {beta}"
            )
            expect(not allowed or given == max(allowed), f"{given} % is within the slack, but {max(allowed)} % is too")


def check_spf(order: Callable[[Sequence[tuple[int, float]], float, float], list[int]]) -> None:
    """Check `order(prompts, now, gamma)`: indices of (remaining tokens, arrival) by SPF with aging."""
    generator = random.Random(0)
    for gamma in (0.0, 15.0, 1e9):
        prompts = [(generator.randint(1, 9000), generator.uniform(0, 100)) for _ in range(12)]
        given = order(prompts, 100.0, gamma)
        expect(sorted(given) == list(range(12)), "return every index once")
        score = [remaining - gamma * (100.0 - arrival) for remaining, arrival in prompts]
        right = sorted(range(12), key=score.__getitem__)
        hint = "with gamma = 0 it is plain shortest first" if not gamma else "a second of waiting is worth gamma tokens"
        expect(given == right, f"gamma = {gamma:g}: {hint}; the smallest score goes first")


def check_chunks(chunks: Callable[[Sequence[int], int], list[int]]) -> None:
    """Check `chunks(remaining, budget)`: tokens that each prompt of the sorted line gets in one batch."""
    cases = {(30, 4): (10, [10, 0]), (3, 4, 5): (10, [3, 4, 3]), (5, 5, 5): (10, [5, 5, 0]), (1,): (10, [1])}
    for line, (budget, right) in cases.items():
        given = chunks(list(line), budget)
        expect(len(given) == len(line), "return one number per prompt, 0 for those that get nothing")
        expect(sum(given) <= budget, f"{given} is more than the budget of {budget}")
        hint = (
            "the first prompt that does not fit gets what is left, or it would wait forever once it exceeds the budget"
        )
        expect(given == right, f"{list(line)} with a budget of {budget}: {given}; {hint}")
