"""Depth noise: its statistics, where holes are, and that level 0 and another seed do what they say."""

import numpy as np
import pytest

from paperlab.rgbd_grasp.noise import NOISE_FAMILIES, Noise, add_noise

RNG = np.random.default_rng(0)
DEPTH = np.where(np.arange(96) < 48, 0.5, 0.7) * np.ones((72, 1))
DEPTH[:5, :5] = 0.0
RGB = RNG.integers(90, 160, (72, 96, 3), dtype=np.uint8)
RGB[30:50, 10:30] = 10  # dark
RGB[30:50, 60:80] = 255  # shining
CASES = [(family, level) for family, levels in NOISE_FAMILIES.items() for level in levels]


@pytest.mark.parametrize(("family", "level"), CASES)
def test_seeded_and_holes_stay(family, level):
    noise = Noise(family, level)
    first, second, other = (add_noise(DEPTH, noise, seed, rgb=RGB) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert (first[:5, :5] == 0).all()
    assert (first >= 0).all()
    if level == 0:
        assert np.array_equal(first, DEPTH)
    elif not (family == "missing" and level == 1):
        assert not np.array_equal(first, other)


def test_gaussian_noise_grows_with_the_square_of_depth():
    noisy = add_noise(DEPTH, Noise("gaussian", 5.0), 0) - DEPTH
    near, far = noisy[10:, :48].std(), noisy[10:, 48:].std()
    assert near == pytest.approx(0.005, rel=0.06)
    assert far == pytest.approx(0.005 * (0.7 / 0.5) ** 2, rel=0.06)


def test_missing_noise_takes_edges_and_what_is_dark_or_shines_and_nothing_else():
    gone = (add_noise(DEPTH, Noise("missing", 1.0), 0, rgb=RGB) == 0) & (DEPTH > 0)
    expected = np.zeros_like(gone)
    expected[:, 47:49] = expected[30:50, 10:30] = expected[30:50, 60:80] = True
    expected[:6, 5] = expected[5, :6] = True  # around the hole
    assert np.array_equal(gone, expected & (DEPTH > 0))
    before = np.zeros_like(gone)
    for level in (0.25, 0.5, 0.75):
        some = (add_noise(DEPTH, Noise("missing", level), 0, rgb=RGB) == 0) & (DEPTH > 0)
        assert (some | ~before).all()  # what was missing stays so at a higher level
        assert some.sum() / gone.sum() == pytest.approx(level, abs=0.15)
        before = some


def test_lateral_noise_moves_edges_and_rounds():
    for level in (1.0, 4.0):
        noisy = add_noise(DEPTH, Noise("lateral", level), 0)
        flat, edge = noisy[30:, :20], noisy[30:, 40:56]
        assert len(np.unique(flat)) == 1  # nothing to smear: rounding alone
        assert np.abs(flat - 0.5).max() <= 0.00105 * level
        swapped = np.abs(edge - DEPTH[30:, 40:56]) > 0.1
        assert 0.02 < swapped.mean() < 0.6
    slope = np.tile(np.linspace(0.4, 0.8, 96), (72, 1))
    steps = np.diff(np.unique(add_noise(slope, Noise("lateral", 2.0), 0)))
    assert steps[-1] > 2 * steps[0]  # coarser far away


def test_bad_noise_is_told():
    with pytest.raises(ValueError, match="family: got 'salt', needs one of gaussian, missing, lateral"):
        Noise("salt", 1.0)
    with pytest.raises(ValueError, match=r"level: got 1\.5, missing noise needs 0 to 1"):
        Noise("missing", 1.5)
    with pytest.raises(ValueError, match="rgb: noise 'missing' needs the color image"):
        add_noise(DEPTH, Noise("missing", 0.5), 0)
    with pytest.raises(ValueError, match="rgb: got float64"):
        add_noise(DEPTH, Noise("missing", 0.5), 0, rgb=RGB / 255.0)
