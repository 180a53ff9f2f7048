import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlab.rgbd_grasp.geometry.cameras import KINECT, REALSENSE, Camera, as_camera, metric_depth


@given(st.integers(0, 10_000))
def test_back_projection_undoes_projection(seed):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-1, 1, (20, 2)), rng.uniform(0.1, 2, 20)])
    np.testing.assert_allclose(REALSENSE.back_project(REALSENSE.project(points), points[:, 2]), points, atol=1e-12)


def test_projection_equals_the_matrix():
    points = np.array([[0.1, -0.2, 0.8], [0.0, 0.0, 1.0]])
    homogeneous = points @ KINECT.matrix.T
    np.testing.assert_allclose(KINECT.project(points), homogeneous[:, :2] / homogeneous[:, 2:])
    assert np.isnan(KINECT.project([[0.0, 0.0, -1.0]])).all()


def test_cloud_is_the_back_projection_of_every_pixel():
    camera = Camera(50.0, 60.0, 3.2, 2.1, 8, 6)
    depth = np.random.default_rng(0).uniform(0.4, 0.6, (6, 8))
    depth[2, 3] = 0.0
    cloud = camera.cloud(depth)
    v, u = np.mgrid[:6, :8]
    pixels = np.column_stack([u.ravel(), v.ravel()]).astype(float)
    np.testing.assert_allclose(cloud.reshape(-1, 3), camera.back_project(pixels, depth.ravel()))
    assert np.array_equal(cloud[2, 3], [0, 0, 0])


def test_resized_camera_sees_the_same_rays():
    small = REALSENSE.resized(320, 180)
    corner_big, corner_small = [[-0.5, -0.5], [1279.5, 719.5]], [[-0.5, -0.5], [319.5, 179.5]]
    np.testing.assert_allclose(REALSENSE.back_project(corner_big, [1, 1]), small.back_project(corner_small, [1, 1]))


def test_matrix_there_and_back_and_bad_ones():
    assert Camera.from_matrix(REALSENSE.matrix, 1280, 720) == REALSENSE
    assert as_camera("kinect") is KINECT
    with pytest.raises(ValueError, match="camera: got 'zed', needs a Camera or one of realsense, kinect"):
        as_camera("zed")
    with pytest.raises(ValueError, match=r"needs \[\[fx, 0, cx\]"):
        Camera.from_matrix(np.ones((3, 3)), 4, 4)
    with pytest.raises(ValueError, match="must be positive"):
        Camera(0.0, 1, 1, 1, 4, 4)


def test_depth_in_millimeters_becomes_meters():
    raw = np.array([[0, 500], [600, 700]], dtype=np.uint16)
    assert np.array_equal(metric_depth(raw), [[0, 0.5], [0.6, 0.7]])
    assert np.array_equal(metric_depth(raw / 1000.0, 1.0), [[0, 0.5], [0.6, 0.7]])


@pytest.mark.parametrize(
    ("depth", "scale", "message"),
    [
        (np.full((2, 2), 0.5), 1000.0, "needs depth_scale 1000 for millimeters, 1 for meters"),
        (np.full((2, 2), 500), 1.0, "needs depth_scale 1000 for millimeters, 1 for meters"),
        (np.array([[0.5, np.nan]]), 1.0, "NaN or infinity in 1 places"),
        (np.zeros((2, 2), dtype=np.uint16), 1000.0, "is empty"),
        (np.zeros((2, 2, 3)), 1000.0, r"got shape \(2, 2, 3\), needs \(N, N\)"),
        (np.array([[-500, 500]]), 1000.0, "needs values of 0"),
        (np.array([["a"]]), 1000.0, "needs real numbers"),
        (np.ones((2, 2)), -1.0, "depth_scale: got -1.0"),
    ],
)
def test_bad_depth_is_told(depth, scale, message):
    with pytest.raises(ValueError, match=message):
        metric_depth(depth, scale)
