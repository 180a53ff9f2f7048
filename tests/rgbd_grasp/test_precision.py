import numpy as np
import pytest

from paperlab.rgbd_grasp.evaluation.bootstrap import interval
from paperlab.rgbd_grasp.evaluation.precision import average_precision, frame_ap, precision_at

LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def by_loops(frictions, top_k=50):
    table = np.zeros((top_k, 6))
    for k in range(1, top_k + 1):
        for j, level in enumerate(LEVELS):
            table[k - 1, j] = sum(1 for f in frictions[:k] if 0 < f <= level) / k
    return table


@pytest.mark.parametrize("count", [0, 1, 17, 50, 63])
def test_precision_equals_the_definition(count):
    frictions = np.random.default_rng(count).choice([-1.0, *LEVELS], size=count)
    np.testing.assert_allclose(precision_at(frictions), by_loops(frictions), rtol=0, atol=1e-15)


def test_better_order_is_worth_more():
    frictions = np.array([-1.0] * 10 + [0.2] * 10)
    worse, better = frame_ap([precision_at(frictions), precision_at(frictions[::-1])])[:, 0]
    assert better > worse


def test_slices_of_the_tensor():
    tensor = np.zeros((1, 50, 6))
    tensor[..., 3] = 1.0  # friction 0.8
    assert frame_ap(tensor)[0] == pytest.approx([1 / 6, 1.0, 0.0])


def test_interval_covers_and_narrows_with_scenes():
    rng = np.random.default_rng(0)

    def judged(scene_count):
        quality = rng.uniform(0.2, 0.8, scene_count)
        held = rng.random((scene_count, 4, 50)) < quality[:, None, None]
        tensor = np.array([precision_at(np.where(row, 0.2, -1.0)) for row in held.reshape(-1, 50)])
        return average_precision(tensor, np.repeat(np.arange(scene_count), 4)).ap

    few, many = judged(5), judged(40)
    assert few.low < few.mean < few.high
    assert many.low < 50 < many.high
    assert many.high - many.low < few.high - few.low


def test_frames_of_one_scene_are_no_independent_evidence():
    tensor = np.random.default_rng(0).random((8, 50, 6))
    assert np.isnan(average_precision(tensor, np.zeros(8)).ap.low)
    with pytest.raises(ValueError, match="one per frame"):
        average_precision(tensor, np.zeros(7))


def test_interval_by_hand():
    mean, low, high = interval(np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert mean == 2.5
    # The mean of 4 draws out of these has a deviation of sqrt(5/4)/2; its distribution is nearly normal.
    assert (low, high) == pytest.approx((2.5 - 1.96 * 0.559, 2.5 + 1.96 * 0.559), abs=0.15)
    assert np.isnan(interval(np.array([[1.0], [2.0]]))[1])


def test_seeds_widen_an_interval():
    scenes = np.linspace(-1, 1, 20)
    alike, apart = np.tile(scenes, (3, 1)), scenes + np.array([[-5.0], [0.0], [5.0]])
    widths = [interval(values)[2] - interval(values)[1] for values in (alike, apart)]
    assert widths[1] > 2 * widths[0]


def test_a_scene_of_many_frames_weighs_more():
    tensor = np.zeros((4, 50, 6))
    tensor[3] = 1.0  # the second scene's only frame
    found = average_precision(tensor, [0, 0, 0, 1]).ap
    assert found == pytest.approx((25.0, 0.0, 100.0))  # a resample may hold either scene alone
    assert interval(np.array([[0.0, 0.0], [0.0, 2.0]]), [3, 1]).mean == pytest.approx(0.25)
