import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors, fibonacci_views, hemisphere_views, label_anchors
from paperlab.rgbd_grasp.geometry.rotations import (
    TWIN,
    random_rotations,
    rotation_distance,
    symmetric_distance,
    view_rotations,
)


@pytest.mark.parametrize(("anchors", "views", "angles"), [(label_anchors(), 300, 12), (avn_anchors(), 60, 6)])
def test_anchors_are_rotations_that_approach_against_their_view(anchors, views, angles):
    assert anchors.rotations.shape == (views * angles, 3, 3)
    assert np.abs(anchors.rotations @ anchors.rotations.swapaxes(1, 2) - np.eye(3)).max() < 1e-12
    np.testing.assert_allclose(np.linalg.det(anchors.rotations), 1.0)
    np.testing.assert_allclose(anchors.rotations[:, :, 0], -np.repeat(anchors.views, angles, axis=0), atol=1e-12)
    first = anchors.rotations[::angles]  # closing axes are level at angle 0 and turn by equal steps
    np.testing.assert_allclose(first[:, 2, 1], 0.0, atol=1e-12)
    turned = rotation_distance(first, anchors.rotations[1::angles])
    np.testing.assert_allclose(turned, np.pi / angles)


def test_hemisphere_looks_forward():
    assert (hemisphere_views(60)[:, 2] < 0).all()
    assert len(hemisphere_views(60)) == 60
    nearest = np.sort(np.arccos(np.clip(hemisphere_views(60) @ hemisphere_views(60).T, -1, 1)), axis=1)[:, 1]
    assert np.rad2deg(nearest.mean()) == pytest.approx(17.5, abs=0.1)


def test_views_are_spread_evenly():
    views = fibonacci_views(300)
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1.0)
    np.testing.assert_allclose(views.mean(axis=0), 0.0, atol=5e-3)
    np.testing.assert_allclose(np.cov(views.T), np.eye(3) / 3, atol=5e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000))
def test_nearest_class_is_the_nearest_by_brute_force(seed):
    anchors = avn_anchors(20, 4)
    rotations = random_rotations(5, np.random.default_rng(seed))
    for symmetry, distance in (("official", rotation_distance), ("canonical", symmetric_distance)):
        found = anchors.nearest(rotations, symmetry)
        every = np.array([distance(r, anchors.rotations) for r in rotations])
        np.testing.assert_allclose(every[np.arange(5), found], every.min(axis=1), atol=1e-7)


def test_jaws_are_interchangeable_unless_official():
    anchors = avn_anchors()
    rotations = random_rotations(500, np.random.default_rng(0))
    twins = rotations @ TWIN
    assert np.array_equal(anchors.nearest(rotations), anchors.nearest(twins))
    assert (anchors.nearest(rotations, "official") != anchors.nearest(twins, "official")).any()
    with pytest.raises(ValueError, match="symmetry: got 'none', needs one of canonical, official"):
        anchors.nearest(rotations, "none")


def test_official_matching_loses_the_view_of_half_the_grasps():
    """Defect D1 of the released labels: angles over half a turn, matched without the twin."""
    anchors = avn_anchors()
    rng = np.random.default_rng(0)
    rotations = random_rotations(40_000, rng)
    rotations = rotations[rotations[:, 2, 0] > 0][:10_000]  # approach in the hemisphere
    error = {
        "canonical": symmetric_distance(anchors.rotations[anchors.nearest(rotations)], rotations),
        "official": symmetric_distance(anchors.rotations[anchors.nearest(rotations, "official")], rotations),
    }
    assert np.rad2deg(error["canonical"].mean()) == pytest.approx(10.8, abs=0.2)
    assert np.rad2deg(np.quantile(error["canonical"], 0.95)) == pytest.approx(15.7, abs=0.3)
    assert np.rad2deg(error["official"].mean()) > 2 * np.rad2deg(error["canonical"].mean())
    view = anchors.nearest(rotations, "official") // 6
    nearest_view = (rotations[:, :, 0] @ -anchors.views.T).argmax(axis=1)
    assert (view == nearest_view).mean() == pytest.approx(0.49, abs=0.02)


def test_neighbors_are_symmetric_and_include_the_class_itself():
    near = avn_anchors(12, 4).neighbors(np.deg2rad(30))
    assert np.array_equal(near, near.T)
    assert near.diagonal().all()
    assert not near.all()


def test_vertical_approach_has_a_closing_axis():
    np.testing.assert_allclose(view_rotations([[0, 0, 2.0]], [0.0])[0, :, 1], [0, 1, 0])
    with pytest.raises(ValueError, match="zero vector"):
        view_rotations([[0.0, 0, 0]], [0.0])
    with pytest.raises(ValueError, match="needs one of each"):
        Anchors(np.zeros((0, 3)), 6)
