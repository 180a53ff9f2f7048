"""Contacts and force closure against analytic answers and against graspnetAPI's own numbers."""

import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.rotations import inverse, move, random_rotations, rigid
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, mesh_sdf
from paperlab.rgbd_grasp.geometry.shapes import box, cylinder, sphere
from paperlab.rgbd_grasp.labels.contacts import Contacts, mesh_contacts, sdf_contacts
from paperlab.rgbd_grasp.labels.force_closure import (
    EVALUATED_FRICTIONS,
    LABELED_FRICTIONS,
    contact_angles,
    smallest_friction,
)
from tests.rgbd_grasp import reference

R = 0.03
LEVELS = np.array(EVALUATED_FRICTIONS)


def analytic_sdf(distance, half_m, cell_m=0.0007):
    axis = np.arange(-half_m - 5 * cell_m, half_m + 5 * cell_m, cell_m)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    return SdfGrid(distance(nodes), np.full(3, axis[0]), cell_m)


@pytest.fixture(scope="module")
def ball():
    return analytic_sdf(lambda p: np.linalg.norm(p, axis=-1) - R, R)


def offset_grasps(angles_deg):
    """Jaws that close beside a ball's center, so that normals lean by the given angles."""
    centers = np.zeros((len(angles_deg), 3))
    centers[:, 2] = R * np.sin(np.deg2rad(angles_deg))
    return centers, np.tile([0.0, 1.0, 0.0], (len(angles_deg), 1)), np.full(len(angles_deg), 0.08)


def analytic_friction(angle_deg):
    held = LEVELS[np.tan(np.deg2rad(angle_deg)) <= LEVELS]
    return held[0] if len(held) else -1.0


def test_ball_by_mesh_is_analytic_away_from_the_cones():
    angles = np.array([a for a in np.arange(0, 60, 0.5) if np.abs(np.rad2deg(np.arctan(LEVELS)) - a).min() > 0.5])
    found = mesh_contacts(sphere(R, 5), *offset_grasps(angles))
    np.testing.assert_allclose(np.rad2deg(contact_angles(found)), angles, atol=0.2)
    assert list(smallest_friction(found)) == [analytic_friction(a) for a in angles]


def test_ball_by_signed_distance_is_at_most_one_level_off(ball):
    """The evaluator's normals are planes through a few samples: contacts are sharp, angles off by degrees."""
    angles = np.arange(0, 50, 0.5)
    found = sdf_contacts(ball, *offset_grasps(angles))
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=-1), R, atol=2e-5)
    error = np.abs(np.rad2deg(contact_angles(found)) - angles)
    assert np.median(error) < 4
    assert error.max() < 12
    ladder = [*EVALUATED_FRICTIONS, -1.0]
    steps = [
        ladder.index(f) - ladder.index(analytic_friction(a))
        for f, a in zip(smallest_friction(found), angles, strict=True)
    ]
    assert np.abs(steps).max() <= 1
    assert np.mean(np.equal(steps, 0)) > 0.6


@pytest.mark.parametrize("shape", [box(0.04, 0.05, 0.06), cylinder(0.03, 0.05, 96)], ids=["box", "cylinder"])
def test_flat_faces_hold_until_the_jaws_are_tilted_beyond_the_cone(shape):
    """Jaws that close at an angle on two parallel faces: the contact angle is that tilt."""
    grid = mesh_sdf(shape, cells=32)
    half = np.ptp(shape.bounds, axis=0)[2] / 2
    tilts = np.array([0.0, 5.0, 14.0, 18.0, 26.0])
    axes = np.stack([np.sin(np.deg2rad(tilts)), np.zeros(5), np.cos(np.deg2rad(tilts))], axis=-1)
    arguments = np.zeros((5, 3)), axes, np.full(5, 2 * half / np.cos(np.deg2rad(26.0)) + 0.01)
    exact = mesh_contacts(shape, *arguments)
    np.testing.assert_allclose(np.rad2deg(contact_angles(exact)), tilts, atol=1e-4)
    expected = [analytic_friction(t) for t in tilts]
    assert list(smallest_friction(exact)) == expected
    assert list(smallest_friction(sdf_contacts(grid, *arguments))) == expected


def test_side_of_a_cylinder_leans_as_on_a_ball():
    angles = np.array([0.0, 8.0, 16.0, 25.0, 34.0, 42.0, 47.0, 55.0])
    found = mesh_contacts(cylinder(R, 0.1, 256), *(lambda c, a, w: (c[:, [2, 1, 0]], a, w))(*offset_grasps(angles)))
    np.testing.assert_allclose(np.rad2deg(contact_angles(found)), angles, atol=0.1)
    assert list(smallest_friction(found)) == [analytic_friction(a) for a in angles]


@pytest.mark.parametrize("name", reference.SCENES)
def test_contacts_equal_graspnet_api(name):
    data = reference.load(name)
    grasps = reference.grasps(data)[data["eval_keep"]]
    grasps.widths = np.clip(grasps.widths, 0, 0.1)
    for k in range(len(data["poses"])):
        mine = (data["eval_object"] == k) & ~data["eval_collision"]
        to_object = inverse(data["poses"][k].astype(float))
        group = grasps[mine].transform(to_object)
        centers = group.translations + group.depths[:, None] * group.rotation_matrices[:, :, 0]
        found = sdf_contacts(reference.sdf(data, k), centers, group.rotation_matrices[:, :, 1], group.widths)
        np.testing.assert_allclose(found.points, data["eval_contact_point"][mine], atol=2e-6)
        angle = data["eval_contact_angle_deg"][mine].max(axis=1)
        np.testing.assert_allclose(np.rad2deg(contact_angles(found)), angle, atol=1e-3)


def test_mesh_and_grid_agree_on_where_jaws_touch(ball):
    rng = np.random.default_rng(0)
    rotations = random_rotations(200, rng)
    arguments = rng.uniform(-0.01, 0.01, (200, 3)), rotations[:, :, 1], np.full(200, 0.09)
    exact, marched = mesh_contacts(sphere(R, 5), *arguments), sdf_contacts(ball, *arguments)
    assert exact.found.all()
    assert marched.found.all()
    assert np.abs(exact.points - marched.points).max() < 2e-4


def test_jaws_that_start_inside_or_pass_by_touch_nothing(ball):
    centers = np.array([[0.0, 0, 0], [0, 0, 0.05], [0, 0.2, 0]])
    arguments = centers, np.tile([0.0, 1.0, 0.0], (3, 1)), np.array([0.04, 0.08, 0.08])
    for found in (sdf_contacts(ball, *arguments), mesh_contacts(sphere(R), *arguments)):
        assert not found.found.any()
        assert (smallest_friction(found) == -1).all()


def test_width_zero_and_no_grasps(ball):
    for contacts in (lambda *a: sdf_contacts(ball, *a), lambda *a: mesh_contacts(sphere(R), *a)):
        assert not contacts(np.zeros((1, 3)), np.eye(3)[:1], np.zeros(1)).found.any()
        assert smallest_friction(contacts(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))).shape == (0,)


def test_contacts_move_with_the_object():
    mesh = box(0.04, 0.05, 0.06)
    motion = rigid(random_rotations(1, np.random.default_rng(2))[0], (0.3, 0.2, 0.1))
    centers, axes, widths = np.zeros((1, 3)), np.array([[0.1, 1.0, 0.05]]), np.array([0.09])
    still = mesh_contacts(mesh, centers, axes, widths)
    moved = mesh_contacts(mesh.moved(motion), move(centers, motion), axes @ motion[:3, :3].T, widths)
    np.testing.assert_allclose(moved.points[0], move(still.points[0], motion), atol=1e-12)


def test_swapping_jaws_and_facing_normals_change_nothing():
    rng = np.random.default_rng(0)
    contacts = Contacts(rng.normal(size=(50, 2, 3)), random_rotations(100, rng)[:, 0].reshape(50, 2, 3))
    angles = contact_angles(contacts)
    np.testing.assert_allclose(contact_angles(Contacts(contacts.points[:, ::-1], contacts.normals[:, ::-1])), angles)
    np.testing.assert_allclose(contact_angles(Contacts(contacts.points, -contacts.normals)), angles)


def test_smallest_friction_is_the_first_that_holds():
    lean = np.deg2rad(np.linspace(0, 80, 161))
    normals = np.stack([np.sin(lean), np.cos(lean), 0 * lean], axis=-1)
    points = np.tile([[0.0, -1, 0], [0, 1, 0]], (161, 1, 1))
    contacts = Contacts(points, np.stack([normals, -normals], axis=1))
    for levels in (EVALUATED_FRICTIONS, LABELED_FRICTIONS):
        expected = [next((mu for mu in levels if a <= np.arctan(mu) + 1e-12), -1.0) for a in lean]
        assert list(smallest_friction(contacts, levels)) == expected
    with pytest.raises(ValueError, match="ascending"):
        smallest_friction(contacts, (0.4, 0.2))
