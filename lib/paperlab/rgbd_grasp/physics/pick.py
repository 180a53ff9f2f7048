"""One attempt: approach, close, lift, hold, and, if asked for, shake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import Grasp, GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import MAX_WIDTH_M
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.physics.hand import Hand
from paperlab.rgbd_grasp.scenes.world import STEP_S

Watch = Callable[[str], None]  # called with the name of a phase as it ends
_BLOCKED_M = 0.005
_CHUNK = 5  # physics steps between moves of the target


@dataclass(frozen=True)
class Motion:
    """Lengths in meters and times in seconds of an attempt."""

    approach_m: float = 0.08
    approach_s: float = 0.4
    close_s: float = 0.4
    lift_m: float = 0.15
    lift_s: float = 0.6
    hold_s: float = 0.4
    success_m: float = 0.10  # by which an object must have risen
    shake_m: float = 0.0  # amplitude of a shake to the sides after the lift
    shake_hz: float = 4.0

    def __post_init__(self) -> None:
        times = (self.approach_s, self.close_s, self.lift_s, self.hold_s, self.shake_hz)
        if min(times) <= 0 or not 0 < self.success_m < self.lift_m or min(self.approach_m, self.shake_m) < 0:
            raise ValueError(f"Motion: needs positive times and 0 < success_m < lift_m, got {self}")


@dataclass(frozen=True)
class Outcome:
    """Which solids (by index) were lifted and are between the fingers at the end, and how far the hand was off.

    Where it was off by more than 5 mm something was in the way: a robot would have stopped, and so does the attempt.
    """

    lifted: tuple[int, ...]
    missed_m: float  # how far palm or fingers were from where they should have been before they closed

    @property
    def success(self) -> bool:
        """Whether anything was lifted."""
        return bool(self.lifted)


def pick(hand: Hand, grasp: Grasp, motion: Motion | None = None, watch: Watch = lambda phase: None) -> Outcome:
    """Carry out a grasp given in the table's frame on whatever lies in the hand's world, and leave it lifted.

    An object counts as lifted where its origin rose by `success_m` and both fingers touch it at the end.
    """
    motion = motion or Motion()
    world = hand.world
    before = world.poses[:, 2, 3]
    turn, width = grasp.rotation_matrix, float(np.clip(grasp.width, 0.0, MAX_WIDTH_M))
    here = rigid(turn, grasp.translation)
    away = rigid(turn, grasp.translation - motion.approach_m * turn[:, 0])
    hand.shape(width, grasp.depth)
    hand.jump(away, width)
    watch("approach")
    _follow(hand, lambda t: _between(away, here, t), motion.approach_s)
    _follow(hand, lambda t: here, 0.1)
    missed = max(float(np.linalg.norm(hand.pose[:3, 3] - here[:3, 3])), abs(hand.opening_m - width) / 2)
    watch("around")
    if missed > _BLOCKED_M:  # the simulated arm is strong enough to force its fingers apart on what they land on
        return Outcome((), missed)
    hand.open_to(0.0)
    _follow(hand, lambda t: here, motion.close_s)
    watch("closed")
    high = rigid(turn, grasp.translation + np.array([0.0, 0.0, motion.lift_m]))
    _follow(hand, lambda t: _between(here, high, t), motion.lift_s / 2, 0.0, 0.5)
    watch("lifting")
    _follow(hand, lambda t: _between(here, high, t), motion.lift_s / 2, 0.5, 1.0)
    if motion.shake_m:
        swings = motion.hold_s * motion.shake_hz * 2 * np.pi
        side = np.array([motion.shake_m, 0.0, 0.0])
        _follow(hand, lambda t: rigid(turn, high[:3, 3] + np.sin(swings * t) * side), motion.hold_s)
    _follow(hand, lambda t: high, motion.hold_s)
    watch("held")
    left, right = hand.touches()
    risen = world.poses[:, 2, 3] - before > motion.success_m
    return Outcome(tuple(i for i in sorted(left & right) if risen[i]), missed)


def _between(start: Floats, end: Floats, t: float) -> Floats:
    """Return the pose at a time from 0 to 1, speeding up and slowing down smoothly; both have one rotation."""
    share = t * t * (3 - 2 * t)
    return rigid(start[:3, :3], (1 - share) * start[:3, 3] + share * end[:3, 3])


def _follow(hand: Hand, path: Callable[[float], Floats], seconds: float, first: float = 0.0, last: float = 1.0) -> None:
    count = max(1, round(seconds / STEP_S / _CHUNK))
    for i in range(count):
        hand.aim(path(first + (last - first) * (i + 1) / count))
        hand.world.step(_CHUNK)


def perturbed(
    grasps: GraspGroup, rng: np.random.Generator, shift_m: float = 0.003, turn_deg: float = 3.0
) -> GraspGroup:
    """Return grasps with a robot's errors: normal shifts, and rotations about random axes, of these deviations."""
    from scipy.spatial.transform import Rotation

    moved = grasps[:]
    moved.translations = grasps.translations + rng.normal(scale=shift_m, size=(len(grasps), 3))
    turns = Rotation.from_rotvec(rng.normal(scale=np.deg2rad(turn_deg) / np.sqrt(3), size=(len(grasps), 3)))
    moved.rotation_matrices = turns.as_matrix() @ grasps.rotation_matrices
    return moved
