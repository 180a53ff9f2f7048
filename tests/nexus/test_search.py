"""Algorithm 1 against an exhaustive scan, its counted steps, floors, infeasible cases, layouts and hysteresis."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlab.hardware import device
from paperlab.nexus.layouts import Layout, at_most, layouts, nearest
from paperlab.nexus.search import Found, floor_percent, realize, search, target_phase
from paperlab.nexus.settings import Settings
from tests.nexus.small import cost_model, decodes, prefills

FLOOR = 5
TARGETS = st.sampled_from(("prefill", "decode"))
SLACKS = st.floats(1.01, 4)


def exhaustive(co_run, target, settings, floor):
    """The largest share of the target at which the other phase keeps its slack, by looking at every one."""
    fitting = []
    for percent in range(floor, 101 - floor):
        if target == "prefill":
            keeps = co_run.decode_s((100 - percent) / 100, percent / 100) <= settings.beta * co_run.decode_s(1.0)
        else:
            keeps = co_run.prefill_s((100 - percent) / 100) <= settings.alpha * co_run.prefill_s(1.0)
        fitting += [percent] * keeps
    return max(fitting, default=None)


@given(prefills, decodes, st.integers(FLOOR, 100 - FLOOR), TARGETS, SLACKS, SLACKS)
def test_the_greedy_search_finds_what_a_scan_of_all_splits_finds(prompts, tokens, start, target, alpha, beta):
    """Without contention the other phase only slows down as its share shrinks, so greedy steps cannot be trapped."""
    settings = Settings(alpha=alpha, beta=beta)
    co_run = cost_model("none").co_run(prompts, tokens)
    found, best = search(co_run, target, start, settings, FLOOR), exhaustive(co_run, target, settings, FLOOR)
    assert found.feasible == (best is not None)
    assert found.percent == (FLOOR if best is None else best)


@given(
    prefills, decodes, st.integers(1, 99), TARGETS, SLACKS, st.sampled_from(("bytes", "rate", "none")), st.booleans()
)
def test_whatever_the_contention_the_result_keeps_the_slack_and_one_step_more_would_not(
    prompts, tokens, start, target, slack, contention, same_contention
):
    settings = Settings(alpha=slack, beta=slack, contention=contention, contention_in_optimum=same_contention)
    co_run = cost_model(contention).co_run(prompts, tokens)
    found = search(co_run, target, start, settings, FLOOR)

    def other_s(percent):
        share = (100 - percent) / 100
        return co_run.decode_s(share, percent / 100) if target == "prefill" else co_run.prefill_s(share)

    assert FLOOR <= found.percent <= 100 - FLOOR
    if found.feasible:
        assert other_s(found.percent) <= found.bound_s
        assert found.percent == 100 - FLOOR or other_s(found.percent + 1) > found.bound_s
    else:
        assert found.percent == FLOOR
        assert other_s(FLOOR) > found.bound_s


class Counted:
    """Latencies inversely proportional to the share; counts every question."""

    def __init__(self):
        self.asked = 0

    def prefill_s(self, share):
        self.asked += 1
        return 1 / share

    def decode_s(self, share, prefill_share=None):
        self.asked += 1
        return 1 / share


def test_every_evaluation_is_counted_and_the_two_phases_are_logged():
    co_run = Counted()
    down = search(co_run, "prefill", 80, Settings(beta=2.0), 1)
    assert co_run.asked == down.evaluations == 33
    assert [probe.step for probe in down.trace] == ["optimum"] + ["shrink"] * 31 + ["grow"]
    assert down.percent == down.prefill_percent == 50
    assert [probe.percent for probe in down.trace[1:-1]] == list(range(80, 49, -1))
    up = search(Counted(), "decode", 20, Settings(alpha=2.0), 1)
    assert [probe.step for probe in up.trace] == ["optimum", "shrink"] + ["grow"] * 31
    assert (up.percent, up.prefill_percent) == (50, 50)


def test_a_converged_search_takes_three_evaluations():
    """C19 says two to four: the optimum, the present split, and the step beyond."""
    co_run = cost_model().co_run(*_example())
    settled = search(co_run, "prefill", 50, Settings(), FLOOR).percent
    again = search(co_run, "prefill", settled, Settings(), FLOOR)
    assert again.percent == pytest.approx(settled, abs=2)
    assert search(co_run, "prefill", again.percent, Settings(), FLOOR).evaluations <= 4


def _example():
    from tests.nexus.small import decode, prefill

    return prefill(), decode()


def test_where_no_split_keeps_the_slack_it_clamps_or_keeps():
    tight = SimpleNamespace(decode_s=lambda share, beside=None: 1.0 if beside is None or share == 1 else 9.0)
    for choice, percent in (("clamp", FLOOR), ("keep", 40)):
        found = search(tight, "prefill", 40, Settings(infeasible=choice), FLOOR)
        assert (found.percent, found.feasible) == (percent, False)
    assert found.evaluations == 1 + 36


def test_contention_on_one_side_only_starves_prefill():
    """Open in the paper: does the optimum see prefill's traffic? If only the other side does, nothing keeps 1.1."""
    co_run = cost_model().co_run(*_example())
    same, one_sided = (
        search(co_run, "prefill", 50, Settings(contention_in_optimum=flag), FLOOR) for flag in (True, False)
    )
    assert same.feasible
    assert same.percent > 30
    assert (one_sided.feasible, one_sided.percent) == (False, FLOOR)


def test_the_pool_decides_whom_to_favor():
    assert [target_phase(usage, Settings()) for usage in (0.0, 0.7, 0.71, 1.0)] == ["prefill"] * 2 + ["decode"] * 2


@pytest.mark.parametrize(("name", "count", "first", "last"), [("L20", 43, 4, 88), ("H200-SXM", 15, 8, 120)])
def test_layouts_are_those_of_green_contexts(name, count, first, last):
    known = layouts(device(name))
    assert len(known) == count
    assert (known[0].prefill_sms, known[-1].prefill_sms) == (first, last)
    assert all(0 < item.share("decode") < 1 and item.share("prefill") + item.share("decode") == 1 for item in known)
    assert floor_percent(known) >= 100 * first / known[0].sms
    assert nearest(known, 50).percent == pytest.approx(50, abs=3)


def test_a_processor_is_split_in_name_only():
    assert layouts(SimpleNamespace(name="cpu", compute_capability="none", sm_count=2)) == (Layout(1, 2),)
    half = search(cost_model().co_run(*_example()), "prefill", 50, Settings(), floor_percent([Layout(1, 2)]))
    assert half.percent == 50
    assert len(layouts(SimpleNamespace(name="cpu", compute_capability="none", sm_count=100))) == 99


@given(st.sampled_from(("L20", "H200-SXM", "A100-SXM-40GB", "T4")), TARGETS, st.integers(1, 99))
def test_rounding_to_a_layout_never_takes_from_the_other_phase(name, target, percent):
    known = layouts(device(name))
    chosen = at_most(known, target, percent)
    sms = {item: item.prefill_sms if target == "prefill" else item.sms - item.prefill_sms for item in known}
    fitting = [count for item, count in sms.items() if 100 * count <= percent * item.sms]
    assert sms[chosen] == (max(fitting) if fitting else min(sms.values()))


@given(TARGETS, st.integers(5, 95), st.integers(0, 42), st.floats(0, 30))
def test_every_applied_change_is_at_least_delta(target, percent, index, delta):
    known = layouts(device("L20"))
    current = known[index]
    applied = realize(Found(target, percent, True, 1.0, ()), known, current, Settings(delta_points=delta))
    assert applied in known
    assert applied == current or abs(applied.percent - current.percent) >= delta - 1e-9
    never = Settings(delta_points=float("inf"))
    assert realize(Found(target, percent, True, 1.0, ()), known, current, never) == current


def test_rounding_comes_before_the_hysteresis():
    """R_p = 55 is 4.6 points away from half of 92 multiprocessors, but its layout, 50 of them, 4.3."""
    known, half = layouts(device("L20")), Layout(46, 92)
    found = Found("prefill", 55, True, 1.0, ())
    assert realize(found, known, half, Settings(delta_points=4.5)) == half
    assert realize(found, known, half, Settings(delta_points=4.3)) == Layout(50, 92)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha is 1.0; it must be above 1"),
        ({"kv_switch": 1.5}, "kv_switch is 1.5"),
        ({"split_percent": 100}, "split_percent is 100"),
        ({"contention": "some"}, "contention is 'some'; use one of bytes, rate, none"),
        ({"period": 0}, "period is 0"),
        ({"delta": 3}, "unknown delta; known: alpha"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(options)


def test_impossible_searches_are_refused():
    with pytest.raises(ValueError, match="target is 'both'"):
        search(Counted(), "both", 50, Settings())
    with pytest.raises(ValueError, match="floor is 60"):
        search(Counted(), "prefill", 50, Settings(), 60)
    with pytest.raises(ValueError, match="do not make two groups"):
        layouts(SimpleNamespace(name="tiny", compute_capability="9.0", sm_count=12))
