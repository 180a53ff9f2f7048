"""Checkers of the exercises in `30_seesaw_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paperlab.lab.exercises import expect


def check_all_reduce(seconds: Callable[[float, int, float], float]) -> None:
    """Check `seconds(size_bytes, gpus, bus_Bps)`: a ring all-reduce, each GPU's share sent around step by step."""
    for size, gpus, bus in ((5e6, 1, 1e9), (8e6, 2, 12e9), (8e6, 4, 12e9), (1e9, 8, 6e9)):
        right = sum(size / gpus / bus for _ in range(2 * (gpus - 1)))
        given = seconds(size, gpus, bus)
        expect(gpus > 1 or given == 0, "one GPU has nobody to talk to")
        expect(
            abs(given - size / bus) > 1e-12 or gpus == 2,
            "every GPU sends 2·(n - 1) parts of size/n, not the whole tensor once",
        )
        expect(
            abs(given - right) <= 1e-9 * max(right, 1e-9),
            f"{gpus} GPUs: {given:.6f} s, but {2 * (gpus - 1)} steps take {right:.6f} s",
        )


def check_decode_passes(weight_reads: Callable[[int, int, int], float]) -> None:
    """Check `weight_reads(model_bytes, tp, pp)`: bytes each GPU reads per token of all sequences."""
    for model, tp, pp in ((64, 4, 1), (64, 1, 4), (64, 2, 2), (128, 2, 4)):
        stage = model / pp / tp
        right = sum(stage for _ in range(pp))  # each of the PP groups passes the stage once
        given = weight_reads(model, tp, pp)
        expect(
            abs(given - stage) > 1e-9 or pp == 1,
            "with PP stages the batch is cut into PP groups; each reads the stage's weights again",
        )
        expect(abs(given - right) < 1e-9, f"TP {tp}, PP {pp}: {given:g}, but the groups together read {right:g}")


def check_max_batch(max_batch: Callable[[float, float, int, int, float], float]) -> None:
    """Check `max_batch(memory, weights, gpus_per_replica, replicas, sequence)` in equal units of bytes (A.3)."""
    for memory, weights, gpus, replicas, sequence in (
        (24, 60, 4, 1, 0.5),
        (24, 60, 8, 1, 0.5),
        (24, 60, 4, 2, 0.5),
        (24, 200, 4, 2, 1),
    ):
        held, free = 0, gpus * memory - weights
        while (held + 1) * sequence <= free + 1e-9:
            held += 1
        given = max_batch(memory, weights, gpus, replicas, sequence)
        expect(given >= 0, "weights that do not fit leave room for nobody, not for fewer than nobody")
        expect(replicas == 1 or given != held or held == 0, "every replica holds its own batch")
        expect(
            abs(given - replicas * held) < 1,
            f"{gpus} GPUs, {replicas} replicas: {given:g}, counting gives {replicas * held}",
        )


def check_transitions(transitions: Callable[[Sequence[int], int], int]) -> None:
    """Check `transitions(prompts, host)`: changes of sharding while every prompt passes a host of `host` tokens."""
    for prompts, host in (((50,) * 12, 600), ((50,) * 12, 300), ((50,) * 12, 150), ((70,) * 10, 200), ((40,), 100)):
        line, changes = list(prompts), 0
        while line:
            used = 0
            while line and used + line[0] <= host:
                used += line.pop(0)
            changes += 1  # to decode
            changes += bool(line)  # and back
        given = transitions(prompts, host)
        expect(given != changes + 1, "the run ends in decode: there is no way back after the last cycle")
        expect(
            given == changes,
            f"{len(prompts)} prompts of {prompts[0]} tokens, host {host}: {given}, playing it through gives {changes}",
        )


def check_slice(slab: Callable[[int, int, int, int], tuple[int, int]]) -> None:
    """Check `slab(kv_heads, block_tokens, tp, rank)`: offset and length, in heads x tokens, of a rank's part (HND)."""
    for heads, tokens, tp in ((8, 16, 2), (8, 16, 8), (4, 3, 4), (2, 5, 1)):
        layout = [(head, token) for head in range(heads) for token in range(tokens)]
        for rank in range(tp):
            mine = [index for index, (head, _) in enumerate(layout) if head * tp // heads == rank]
            given = tuple(slab(heads, tokens, tp, rank))
            expect(
                given == (mine[0], len(mine)),
                f"rank {rank} of {tp}: {given}, but its elements are {mine[0]} to {mine[-1]}",
            )
