"""Workloads: the published statistics, arrivals, seeds, scaling, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from paperlab.serving.lengths import Empirical, Quantiles, fixed, length_source, uniform
from paperlab.serving.request import Request
from paperlab.serving.workload import Workload, workload

MANY = 200_000


@pytest.fixture(scope="module", params=["ldc", "arxiv", "sharegpt"])
def published(request):
    return workload(request.param, requests=MANY, seed=3, arrivals="at_once")


def test_all_statistics_of_table_1_within_2_percent(published):
    table = published.statistics()
    assert len(table) == 8
    assert table.relative_error.abs().max() < 0.02


def test_statistics_come_from_the_requests(published):
    prompts = sorted(request.prompt_tokens for request in published.requests)
    table = published.statistics().set_index(["side", "statistic"])
    assert table.loc[("prompt", "mean"), "tokens"] == pytest.approx(sum(prompts) / MANY)
    assert table.loc[("prompt", "P95"), "tokens"] == pytest.approx(prompts[int(0.95 * (MANY - 1))], abs=1)


def test_mixed_is_three_fifths_sharegpt():
    drawn = length_source("mixed").draw(np.random.default_rng(1).random((MANY, 3)))
    # ShareGPT prompts end at 1,700 tokens, LDC's begin at 2,956.
    short = (drawn[:, 0] < 2000).mean()
    assert abs(short - 0.6) < 3 * (0.6 * 0.4 / MANY) ** 0.5
    table = workload("mixed", requests=MANY, arrivals="at_once").statistics().set_index(["side", "statistic"])
    assert table.loc[[("prompt", "mean"), ("output", "mean")], "relative_error"].abs().max() < 0.02


@pytest.mark.parametrize("log", [False, True])
def test_quantiles_invert_their_own_cdf(log):
    knots = Quantiles((0, 0.5, 0.95, 1), (100, 1000, 5000, 9000), log)
    drawn = knots(np.random.default_rng(0).random(MANY))
    assert np.percentile(drawn, [50, 95]) == pytest.approx([1000, 5000], rel=0.02)
    assert (drawn.min(), drawn.max()) == (pytest.approx(100, abs=2), pytest.approx(9000, rel=0.01))


def test_uniform_gives_every_length_the_same_chance():
    drawn = uniform((1, 6), (3, 3)).draw(np.random.default_rng(0).random((60_000, 3)))
    assert stats.chisquare(np.bincount(drawn[:, 0])[1:]).pvalue > 1e-3
    assert set(drawn[:, 1]) == {3}


def test_fixed_lengths():
    made = workload(fixed(700, 20), rate_per_s=1, requests=5)
    assert {(request.prompt_tokens, request.output_tokens) for request in made.requests} == {(700, 20)}


def test_poisson_gaps_are_exponential():
    made = workload("sharegpt", rate_per_s=2.5, requests=5000, seed=11)
    times = np.array([request.arrival_s for request in made.requests])
    gaps = np.diff(times, prepend=0.0)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 2.5)).pvalue > 0.01
    # Independent gaps: no correlation of neighbors beyond chance.
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 3 / len(gaps) ** 0.5


def test_another_rate_only_stretches_the_arrivals():
    slow, fast = (workload("mixed", rate_per_s=rate, requests=50, seed=4) for rate in (1.0, 4.0))
    for left, right in zip(slow.requests, fast.requests, strict=True):
        assert left.arrival_s == pytest.approx(4 * right.arrival_s)
        assert (left.prompt_tokens, left.output_tokens) == (right.prompt_tokens, right.output_tokens)


def test_a_longer_run_begins_with_the_shorter_one():
    short, long = (workload("mixed", rate_per_s=1.0, requests=count, seed=4) for count in (20, 70))
    assert long.requests[:20] == short.requests


def test_seeds_differ_and_repeat():
    first, again, other = (workload("ldc", rate_per_s=1.0, requests=9, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_at_once_and_given_times():
    assert {request.arrival_s for request in workload("ldc", requests=3, arrivals="at_once").requests} == {0.0}
    given = workload("ldc", arrivals=np.array([3.0, 1.0]))
    assert [request.arrival_s for request in given.requests] == [1.0, 3.0]
    assert len(workload("ldc", arrivals="at_once")) == 500


def test_trace_replays_rows_in_order_of_time():
    trace = Empirical("mine", ((5, 6), (7, 8), (9, 1)), (2.0, 0.5, 4.0))
    replayed = workload(trace, arrivals="trace")
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in replayed.requests] == [
        (0.5, 7, 8), (2.0, 5, 6), (4.0, 9, 1)
    ]  # fmt: skip
    assert len(workload(trace, arrivals="trace", requests=2)) == 2
    resampled = workload(trace, rate_per_s=1, requests=200)
    assert {(r.prompt_tokens, r.output_tokens) for r in resampled.requests} == {(5, 6), (7, 8), (9, 1)}


def test_scaled_shortens_and_says_so():
    made = workload("ldc", rate_per_s=2.0, requests=40)
    small = made.scaled(tokens=1 / 64, times=0.5)
    assert small.rate_per_s == 4.0
    assert small.name != made.name
    for before, after in zip(made.requests, small.requests, strict=True):
        assert after.prompt_tokens == max(1, round(before.prompt_tokens / 64))
        assert after.arrival_s == before.arrival_s / 2
    assert small.statistics().paper_tokens.isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": "ldcc"}, "ldcc"),
        ({"rate_per_s": 0.0}, "rate_per_s is 0.0"),
        ({"rate_per_s": -1.0}, "rate_per_s is -1.0"),
        ({"rate_per_s": float("nan")}, "rate_per_s is nan"),
        ({"rate_per_s": None}, "rate_per_s is missing"),
        ({"requests": 0}, "requests is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"arrivals": "at_once"}, "rate_per_s is 2.0"),
        ({"arrivals": "trace", "rate_per_s": None}, "arrival_s"),
        ({"arrivals": "burst", "rate_per_s": None}, "burst"),
        ({"arrivals": [], "rate_per_s": None}, "empty"),
        ({"arrivals": [1.0], "requests": 2, "rate_per_s": None}, "requests is 2"),
        ({"arrivals": [-1.0], "rate_per_s": None}, "arrival_s is -1.0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        workload(**({"lengths": "mixed", "rate_per_s": 2.0} | arguments))
    assert "\n" not in str(caught.value)


def test_a_workload_is_checked():
    request = Request(0, 1.0, 2, 3)
    with pytest.raises(ValueError, match="empty"):
        Workload("none", ())
    with pytest.raises(ValueError, match="twice"):
        Workload("twice", (request, request))
    with pytest.raises(ValueError, match="sort"):
        Workload("order", (request, Request(1, 0.5, 2, 3)))
    for tokens, times in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="positive"):
            Workload("one", (request,)).scaled(tokens, times)


@pytest.mark.parametrize(("levels", "tokens"), [((0, 0.5), (1, 2)), ((0, 1), (2, 1)), ((0, 1), (0, 1)), ((0, 1), (1,))])
def test_bad_knots_are_refused(levels, tokens):
    with pytest.raises(ValueError, match="Quantiles"):
        Quantiles(levels, tokens)
