"""The robot experiment in simulation: single objects, and clutter removed one object after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.evaluation.scene import table_points
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import MAX_WIDTH_M, collisions
from paperlab.rgbd_grasp.geometry.rotations import inverse, move, random_rotations
from paperlab.rgbd_grasp.labels.contacts import mesh_contacts
from paperlab.rgbd_grasp.labels.force_closure import LABELED_FRICTIONS, smallest_friction
from paperlab.rgbd_grasp.labels.grid import CLEARANCE_M
from paperlab.rgbd_grasp.physics.hand import Grip, build_world_with_hand
from paperlab.rgbd_grasp.physics.pick import Motion, perturbed, pick
from paperlab.rgbd_grasp.physics.rates import Rate, rate_of
from paperlab.rgbd_grasp.scenes.assets import surface_voxels
from paperlab.rgbd_grasp.scenes.catalog import catalog
from paperlab.rgbd_grasp.scenes.drop import drop
from paperlab.rgbd_grasp.scenes.generate import Scene, Sizes, above_table, label_scene, make_scene, take_views
from paperlab.rgbd_grasp.scenes.looks import random_looks
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.viewpoints import Viewpoints

Policy = Callable[[View], GraspGroup]  # a view to ranked grasps in its camera's frame, best first
Ending = Literal["cleared", "two failures", "no grasp", "attempts"]
SCORES = (0.0, *(round(1.1 - friction, 1) for friction in reversed(LABELED_FRICTIONS)))
_TOP_DOWN = Viewpoints(elevation_deg=(60.0, 75.0))  # where a robot's camera hangs


@dataclass(frozen=True)
class Trial:
    """What an attempt is made with; the errors are the robot's, normal, of these standard deviations."""

    grip: Grip = field(default_factory=Grip)
    motion: Motion = field(default_factory=Motion)
    shift_m: float = 0.0
    turn_deg: float = 0.0

    def __post_init__(self) -> None:
        if min(self.shift_m, self.turn_deg) < 0:
            raise ValueError(f"Trial: errors must not be negative, got {self}")

    def executed(self, grasps: GraspGroup, rng: np.random.Generator) -> GraspGroup:
        """Return grasps as the robot carries them out."""
        return perturbed(grasps, rng, self.shift_m, self.turn_deg)


# Low friction and a robot's errors tell good grasps from lucky ones; a shake loosens what is only caged.
HARD = Trial(Grip(friction=0.25), Motion(shake_m=0.02), shift_m=0.003, turn_deg=3.0)


def oracle_policy(view: View) -> GraspGroup:
    """Return the labels of a view, best first: the upper bound of the physics tables, privileged of course."""
    solids = tuple(catalog()[i] for i in view.object_ids)
    poses = view.table_from_camera @ view.poses
    looks = random_looks(len(solids), np.random.default_rng(0))
    labels = label_scene(Scene(view.scene_id, view.object_ids, solids, poses, looks), 300, seed=0)
    return labels.transform(inverse(view.table_from_camera)).sort_by_score()


def attempts_on(solid: Solid, pose: Floats, grasps: GraspGroup, trial: Trial, seed: int = 0) -> list[bool]:
    """Return which grasps (in the table's frame) lift a lone solid from its pose (4, 4)."""
    hand = build_world_with_hand([solid], trial.grip)
    outcomes = []
    for grasp in trial.executed(grasps, np.random.default_rng(seed)):
        hand.world.place(pose[None])
        outcomes.append(pick(hand, grasp, trial.motion).success)
    return outcomes


def candidates(solid: Solid, pose: Floats, count: int, seed: int = 0) -> GraspGroup:
    """Return grasps of a lone solid on the table, in the table's frame, of all scores from 0 (no force closure) to 1.

    Random orientations at points of the surface: quality is left to chance, unlike that of sampled labels. Where jaws
    would touch, the hand is moved between the contacts and opened 5 mm wider on each side, as labels are; elsewhere it
    is as open as it gets. What collides is left out.
    """
    rng = np.random.default_rng(seed)
    points, _ = solid.mesh.sample(count, rng)
    rotations = random_rotations(count, rng)
    depths = rng.choice([0.01, 0.02, 0.03, 0.04], count)
    grasps = GraspGroup.from_parts(rotations, points - 0.01 * rotations[:, :, 0], widths=0.1, depths=depths)
    grasps = grasps[above_table(grasps, pose)]
    closing = grasps.rotation_matrices[:, :, 1]
    centers = grasps.translations + grasps.depths[:, None] * grasps.rotation_matrices[:, :, 0]
    contacts = mesh_contacts(solid.mesh, centers, closing, grasps.widths)
    friction = smallest_friction(contacts, LABELED_FRICTIONS)
    grasps.scores = np.where(friction > 0, 1.1 - friction, 0.0)
    along = np.nan_to_num(np.einsum("nji,ni->nj", contacts.points - centers[:, None], closing))
    grasps.translations = grasps.translations + along.mean(axis=1)[:, None] * closing
    apart = np.abs(along[:, 0] - along[:, 1])
    grasps.widths = np.where(contacts.found, np.minimum(apart + 2 * CLEARANCE_M, MAX_WIDTH_M), MAX_WIDTH_M)
    table = move(table_points(), inverse(pose))
    around = np.concatenate([surface_voxels(solid.mesh), table[np.linalg.norm(table, axis=1) < 0.2]])
    return grasps[~collisions(grasps, around).unusable].transform(pose)


def success_by_score(
    solids: Sequence[Solid],
    per_level: int,
    trial: Trial = HARD,
    seed: int = 0,
    *,
    tried: int = 3000,
    levels: Sequence[float] = SCORES,
) -> dict[float, Rate]:
    """Return the success rate at each of some label scores, 0 standing for no force closure, over all lone solids.

    Of every solid, in a pose that physics left it in, up to `per_level` grasps of each score are carried out.
    """
    outcomes: dict[float, list[bool]] = {round(score, 1): [] for score in levels}
    for index, solid in enumerate(solids):
        rng = np.random.default_rng([seed, index])
        pose = drop([solid], rng)[0]
        grasps = candidates(solid, pose, tried, int(rng.integers(2**31)))
        grasps = grasps[rng.permutation(len(grasps))]
        level = grasps.scores.round(1)
        chosen = np.concatenate([np.flatnonzero(level == score)[:per_level] for score in outcomes])
        lifted = attempts_on(solid, pose, grasps[chosen], trial, int(rng.integers(2**31)))
        for score, success in zip(level[chosen], lifted, strict=True):
            outcomes[float(score)].append(success)
    return {score: rate_of(results) for score, results in sorted(outcomes.items()) if results}


def single_objects(
    policy: Policy, object_ids: Sequence[int], poses: int, trial: Trial | None = None, seed: int = 0
) -> dict[str, Rate]:
    """Return per object the success rate of the policy's best grasp over `poses` random settled poses.

    An image without any grasp is a failure.
    """
    if poses < 1 or not object_ids:
        raise ValueError(f"single_objects: got {len(object_ids)} objects in {poses} poses, needs one of each")
    trial, results = trial or Trial(), {}
    for object_id in object_ids:
        lifted = []
        for k in range(poses):
            scene = make_scene(1000 * object_id + k, seed, [object_id], 1)
            view = robot_view(scene, seed)
            grasps = policy(view)[:1].transform(view.table_from_camera)
            outcomes = attempts_on(scene.solids[0], scene.poses[0], grasps, trial, seed + k) if len(grasps) else [False]
            lifted += outcomes
        results[catalog()[object_id].name] = rate_of(lifted)
    return results


def robot_view(scene: Scene, seed: int, sizes: Sizes | None = None) -> View:
    """Return what a camera above the table sees."""
    return take_views(scene, replace(sizes or Sizes(), views=1), seed, viewpoints=_TOP_DOWN)[0].view


@dataclass(frozen=True)
class Clearing:
    """How a pile was cleared: attempts and successes, objects placed and removed, and why it ended."""

    attempts: int
    successes: int
    placed: int
    removed: int
    ending: Ending


def clear_table(
    scene: Scene, policy: Policy, trial: Trial | None = None, *, attempts: int = 20, seed: int = 0
) -> Clearing:
    """Let a policy remove objects until none is left, it fails twice in a row, or finds no grasp (VGN's protocol).

    Before each attempt it gets a new image of what physics left behind.
    """
    if attempts < 1:
        raise ValueError(f"attempts: got {attempts}, needs at least 1")
    trial, rng = trial or Trial(), np.random.default_rng(seed)
    made = successes = failures = 0
    left = scene
    while made < attempts:
        view = robot_view(left, seed + made)
        grasps = policy(view)
        if not len(grasps):
            return _ended(scene, left, made, successes, "no grasp")
        hand = build_world_with_hand(left.solids, trial.grip)
        hand.world.place(left.poses)
        outcome = pick(hand, trial.executed(grasps[:1].transform(view.table_from_camera), rng)[0], trial.motion)
        made, successes = made + 1, successes + outcome.success
        failures = 0 if outcome.success else failures + 1
        remaining = _settled_without(left, hand.world.poses, outcome.lifted)
        if remaining is None:
            return Clearing(made, successes, len(scene.solids), len(scene.solids), "cleared")
        left = remaining
        if failures == 2:
            return _ended(scene, left, made, successes, "two failures")
    return _ended(scene, left, made, successes, "attempts")


def _ended(scene: Scene, left: Scene, made: int, successes: int, ending: Ending) -> Clearing:
    return Clearing(made, successes, len(scene.solids), len(scene.solids) - len(left.solids), ending)


def _settled_without(scene: Scene, poses: Floats, lifted: Sequence[int]) -> Scene | None:
    """Return the scene without what was lifted, at rest, or None where nothing is left on the table."""
    keep = [i for i in range(len(scene.solids)) if i not in lifted]
    if not keep:
        return None
    looks = replace(scene.looks, solids=tuple(scene.looks.solids[i] for i in keep))
    ids, solids = tuple(scene.object_ids[i] for i in keep), tuple(scene.solids[i] for i in keep)
    still = Scene(scene.scene_id, ids, solids, poses[keep], looks)
    world = still.world()
    world.step(500)
    return replace(still, poses=world.poses)


def clearing_rates(clearings: Sequence[Clearing]) -> Mapping[str, Rate]:
    """Return VGN's two rates over many piles: successes per attempt, and objects removed per object placed."""
    return {
        "success rate": Rate(sum(c.successes for c in clearings), sum(c.attempts for c in clearings)),
        "objects cleared": Rate(sum(c.removed for c in clearings), sum(c.placed for c in clearings)),
    }
