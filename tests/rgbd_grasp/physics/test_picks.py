"""Picks obey mechanics: nothing from air or without friction, more with better labels; clutter ends by the rules."""

import dataclasses
import itertools

import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import rigid, symmetric_distance, view_rotations
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.physics import (
    HARD,
    Clearing,
    Grip,
    Motion,
    Rate,
    Trial,
    attempts_on,
    build_world_with_hand,
    candidates,
    clear_table,
    clearing_rates,
    draw_film,
    film_pick,
    first_that_lifts,
    perturbed,
    pick,
    rates_table,
    single_objects,
    success_by_score,
)
from paperlab.rgbd_grasp.scenes import catalog, make_scene
from paperlab.rgbd_grasp.scenes.generate import Scene
from paperlab.rgbd_grasp.scenes.looks import random_looks
from paperlab.rgbd_grasp.scenes.render import Quality
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.viewpoints import cropped_realsense

BLOCK = Solid("block", "seen", (box(0.04, 0.06, 0.08),))
STANDING = rigid(np.eye(3), (0.0, 0.0, 0.04))


def from_above(x=0.0, y=0.0, z=0.06, angle=0.0, width=0.06, depth=0.02):
    """Grasps that approach downward; at angle 0 the jaws close along the table's y axis, at 90° along x."""
    rotation = view_rotations(np.array([[0.0, 0.0, -1.0]]), np.array([angle]))
    return GraspGroup.from_parts(rotation, [[x, y, z]], widths=width, depths=depth, scores=1.0)


def lifted(solid=BLOCK, pose=STANDING, trial=None, **where):
    return attempts_on(solid, pose, from_above(**where), trial or Trial())[0]


def test_a_block_is_lifted_across_its_narrow_side():
    hand = build_world_with_hand([BLOCK])
    hand.world.place(STANDING[None])
    phases = []
    outcome = pick(hand, from_above(angle=np.pi / 2)[0], watch=lambda phase: phases.append((phase, hand.opening_m)))
    assert outcome.lifted == (0,)
    assert outcome.missed_m < 0.002
    assert [name for name, _ in phases] == ["approach", "around", "closed", "lifting", "held"]
    openings = dict(phases)
    assert openings["around"] == pytest.approx(0.06, abs=0.001)
    assert openings["closed"] == pytest.approx(0.04, abs=0.002)  # the block's width
    assert hand.world.poses[0, 2, 3] == pytest.approx(0.04 + Motion().lift_m, abs=0.01)
    assert np.abs(hand.pose[:3, :3] - from_above(angle=np.pi / 2)[0].rotation_matrix).max() < 0.02


@pytest.mark.parametrize(
    "where",
    [
        {"x": 0.3, "angle": np.pi / 2},  # beside it
        {"z": 0.25, "angle": np.pi / 2},  # above it
    ],
)
def test_empty_air_is_never_a_success(where):
    assert not lifted(**where)


@pytest.mark.parametrize("solid", [BLOCK, Solid("ball", "seen", (sphere(0.025, 3),))])
def test_nothing_is_lifted_without_friction(solid):
    pose = rigid(np.eye(3), (0, 0, 0.04 if solid is BLOCK else 0.025))
    height = {"z": 0.06} if solid is BLOCK else {"z": 0.045, "depth": 0.02}
    assert lifted(solid, pose, angle=np.pi / 2, **height)
    assert not lifted(solid, pose, Trial(Grip(friction=0.0)), angle=np.pi / 2, **height)


def test_weak_or_slippery_fingers_drop_what_strong_ones_hold():
    heavy = {"angle": np.pi / 2}
    assert lifted(trial=Trial(Grip(friction=0.3, force_N=20.0)), **heavy)
    assert not lifted(trial=Trial(Grip(friction=0.3, force_N=0.3)), **heavy)  # 0.2 N of friction, 0.75 N of weight


def test_a_hand_that_is_too_narrow_or_off_lifts_nothing():
    hand = build_world_with_hand([BLOCK])
    hand.world.place(STANDING[None])
    landed = pick(hand, from_above(angle=0.0, width=0.03)[0])  # its fingers come down on the 6 cm side
    assert landed.lifted == ()
    assert landed.missed_m > 0.005
    assert not lifted(angle=np.pi / 2, y=0.08)


def pooled(rates, levels):
    chosen = [rates[level] for level in levels]
    return Rate(sum(r.successes for r in chosen), sum(r.attempts for r in chosen))


def test_success_rises_with_the_label_score():
    rates = success_by_score([catalog()[i] for i in (3, 5, 9)], 6, HARD, seed=1, levels=(0.0, 0.2, 0.3, 0.8, 0.9))
    assert list(rates) == [0.0, 0.2, 0.3, 0.8, 0.9]
    low, high = (pooled(rates, levels) for levels in ((0.0, 0.2, 0.3), (0.8, 0.9)))
    assert min(low.attempts, high.attempts) >= 15
    assert high.share > low.share + 0.2
    assert high.interval[0] > low.interval[0]


def test_candidates_are_free_and_scored_by_closure():
    grasps = candidates(BLOCK, STANDING, 800)
    assert len(np.unique(grasps.scores)) >= 4
    flat = np.abs(grasps.rotation_matrices[:, :, 1]).max(axis=1) > 0.999  # close along a normal of the block
    assert (grasps.scores[flat] > 0.8).mean() > 0.5 if flat.any() else True
    assert grasps.widths.max() <= 0.1
    assert 0 in grasps.scores


def test_errors_are_as_large_as_asked():
    grasps = GraspGroup.from_parts(np.tile(np.eye(3), (4000, 1, 1)), np.zeros((4000, 3)))
    moved = perturbed(grasps, np.random.default_rng(0), 0.003, 3.0)
    assert moved.translations.std() == pytest.approx(0.003, rel=0.05)
    turned = symmetric_distance(moved.rotation_matrices, grasps.rotation_matrices)
    assert np.sqrt((turned**2).mean()) == pytest.approx(np.deg2rad(3), rel=0.05)
    same = Trial().executed(grasps, np.random.default_rng(0))
    np.testing.assert_allclose(same.grasp_group_array, grasps.grasp_group_array, atol=1e-12)


def block_scene():
    poses = np.stack([rigid(np.eye(3), (x, 0, 0.04)) for x in (-0.06, 0.06)])
    return Scene(0, (0, 1), (BLOCK, BLOCK), poses, random_looks(2, np.random.default_rng(0)))


def aimed_at_blocks(view):
    """A policy that knows the poses, and where the blocks' narrow sides are."""
    camera_from_table = np.linalg.inv(view.table_from_camera)
    group = GraspGroup()
    for pose in view.table_from_camera @ view.poses:
        group.add(from_above(*pose[:2, 3], 0.06, angle=np.pi / 2)[0])
    return group.transform(camera_from_table)


def test_clutter_removal_ends_by_the_rules():
    assert clear_table(block_scene(), aimed_at_blocks) == Clearing(2, 2, 2, 2, "cleared")
    assert clear_table(block_scene(), aimed_at_blocks, attempts=1) == Clearing(1, 1, 2, 1, "attempts")
    nothing = clear_table(block_scene(), lambda view: GraspGroup())
    assert nothing == Clearing(0, 0, 2, 0, "no grasp")

    def misses(view):
        return from_above(0.3, 0.3).transform(np.linalg.inv(view.table_from_camera))

    failed = clear_table(block_scene(), misses)
    assert failed == Clearing(2, 0, 2, 0, "two failures")
    rates = clearing_rates([nothing, failed, Clearing(2, 2, 2, 2, "cleared")])
    assert rates == {"success rate": Rate(2, 4), "objects cleared": Rate(2, 6)}


def test_single_objects_counts_an_image_without_grasps_as_a_failure():
    assert single_objects(lambda view: GraspGroup(), [0, 3], 2) == {"box": Rate(0, 2), "tall cylinder": Rate(0, 2)}
    with pytest.raises(ValueError, match="single_objects: got 0 objects"):
        single_objects(lambda view: GraspGroup(), [], 2)


def test_rates_carry_wilsons_interval():
    low, high = Rate(8, 10).interval
    z, n, p = 1.959964, 10, 0.8
    middle, half = (p + z * z / 2 / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n**2)
    assert (low, high) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)), abs=1e-6
    )
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert rates_table({"a": Rate(1, 2)}, "object").iloc[0].to_dict()["rate"] == 50.0
    with pytest.raises(ValueError, match="3 successes in 2 attempts"):
        Rate(3, 2)


def test_a_filmstrip_shows_the_hand_and_the_lift():
    scene = dataclasses.replace(make_scene(0, 0, [0], 1), solids=(BLOCK,), poses=STANDING[None])
    plain = Quality(noise=0.0, blur_px=0.0)
    film, outcome = film_pick(scene, from_above(angle=np.pi / 2)[0], camera=cropped_realsense(64, 48), quality=plain)
    assert outcome.success
    assert len(film) == 5
    pictures = [picture for _, picture in film]
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    assert all(np.abs(a.astype(int) - b).max() > 40 for a, b in itertools.pairwise(pictures))
    figure = draw_film(film)
    assert len(figure.axes) == 5
    with pytest.raises(ValueError, match="titles: got 1 for 5 pictures"):
        draw_film(film, ["one"])


def test_the_first_grasp_that_lifts_is_found_among_those_that_do_not():
    scene = dataclasses.replace(make_scene(0, 0, [0], 1), solids=(BLOCK,), poses=STANDING[None])
    good = from_above(angle=np.pi / 2)
    high = good[:]
    high.translations = high.translations + np.array([0.0, 0.0, 0.3])
    ranked = high[:]
    ranked.add(good)
    assert first_that_lifts(scene, ranked) == 1
    assert first_that_lifts(scene, high) is None


def test_impossible_settings_are_told():
    for wrong in (lambda: Grip(friction=-1.0), lambda: Motion(lift_m=0.05), lambda: Trial(shift_m=-0.1)):
        with pytest.raises(ValueError, match="got"):
            wrong()
    with pytest.raises(ValueError, match="attempts: got 0"):
        clear_table(block_scene(), aimed_at_blocks, attempts=0)
