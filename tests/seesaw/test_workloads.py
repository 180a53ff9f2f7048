"""The workloads have the published statistics of the traces they stand for; nothing of a trace is stored."""

import numpy as np
import pytest

from paperlab.seesaw.workloads import PAIRS, length_source, paired, published, workload
from paperlab.serving.lengths import Quantiles

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@pytest.mark.parametrize(("name", "means"), [("arxiv", (2588, 291)), ("sharegpt", (378, 419))])
def test_quantiles_and_means_are_the_published_ones(name, means):
    uniforms = np.random.default_rng(0).random((100_000, 3))
    drawn = length_source(name).draw(uniforms)
    for column, side in enumerate(("prompt", "output")):
        knots = published(name, side)
        wanted = [dict(zip(knots.levels, knots.tokens, strict=True))[level] for level in LEVELS]
        below = np.mean(drawn[:, [column]] <= wanted, axis=0)
        assert below == pytest.approx(LEVELS, abs=0.006)
        assert drawn[:, column].mean() == pytest.approx(means[column], rel=0.04)  # not a knot: an independent figure


def test_the_cap_of_arxiv_makes_long_outputs_go_with_short_prompts():
    rows = np.array(length_source("arxiv").rows)
    assert len(rows) == PAIRS
    assert rows.sum(axis=1).max() <= 4096
    ranks = rows.argsort(axis=0).argsort(axis=0)
    assert np.corrcoef(ranks.T)[0, 1] == pytest.approx(-0.11, abs=0.06)  # the trace's


def test_pairing_is_even_among_what_fits():
    """Prompts 1, 2, 3, 4 and outputs of the same, at most 6 together: 4 goes with 1 or 2, and so on."""
    knots = Quantiles((0.0, 1.0), (0.5, 4.5))
    found = [tuple(sorted(paired(knots, knots, 6, 4, seed))) for seed in range(800)]
    kinds = {pairs: found.count(pairs) for pairs in found}
    assert len(kinds) == 8  # 2 choices for 4, then 2 for 3, then 2 for 2
    assert all(count == pytest.approx(100, abs=40) for count in kinds.values())
    assert all(prompt + output <= 6 for pairs in kinds for prompt, output in pairs)
    with pytest.raises(ValueError, match="most is 4; no prompt is left that fits 4 output tokens"):
        paired(knots, knots, 4, 4)


def test_workloads_are_seeded_and_unknown_ones_told():
    assert workload("arxiv", 5, seed=1) == workload("arxiv", 5, seed=1) != workload("arxiv", 5, seed=2)
    assert (len(workload("arxiv")), len(workload("sharegpt"))) == (500, 2000)
    with pytest.raises(ValueError, match="unknown workload 'alpaca'; known: arxiv, sharegpt"):
        workload("alpaca")
