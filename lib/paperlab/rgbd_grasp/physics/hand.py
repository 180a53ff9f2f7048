"""A parallel-jaw hand of the evaluator's boxes, in MuJoCo: two coupled sliding fingers on a palm that follows a target.

The palm hangs on its target by a stiff weld, so that its velocity is real and friction carries what it holds. Nothing
is ever welded to an object, and no contact is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M
from paperlab.rgbd_grasp.geometry.gripper import BASE_M, FINGER_M, MAX_WIDTH_M
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.world import SEEN, World, build_world

_WELD = (0.004, 1.0)  # time constant (s) and damping ratio
_STIFFNESS, _DAMPING = 2000.0, 40.0  # of the fingers' position control, in N/m and N s/m
_PALM_KG, _FINGER_KG = 0.6, 0.05
_PATCH_M = 0.01  # radius of the contact patch: spinning friction is this times sliding friction


@dataclass(frozen=True)
class Grip:
    """Friction coefficient of the fingers with anything, and the largest force of each in newtons."""

    friction: float = 0.5
    force_N: float = 20.0

    def __post_init__(self) -> None:
        if self.friction < 0 or self.force_N <= 0:
            raise ValueError(f"Grip: needs a friction of 0 or more and a positive force, got {self}")


@dataclass(frozen=True, eq=False)
class Hand:
    """The hand in a world that `build_world_with_hand` made."""

    world: World
    grip: Grip

    @property
    def geoms(self) -> list[int]:
        """The numbers of what is seen of it: palm, wrist, fingers."""
        return [self.world.model.geom(name).id for name in ("palm", "wrist", "left", "right")]

    @property
    def pose(self) -> Floats:
        """Where the hand is: the grasp's frame (4, 4) in the table's."""
        body = self.world.model.body("hand").id
        return rigid(self.world.data.xmat[body].reshape(3, 3), self.world.data.xpos[body])

    @property
    def opening_m(self) -> float:
        """The distance between the fingers."""
        left, right = (float(self.world.data.joint(name).qpos[0]) for name in ("left", "right"))
        return left + right

    def shape(self, width_m: float, depth_m: float) -> None:
        """Give the boxes the lengths of a grasp: fingers end `depth_m` beyond its point, the palm spans its width."""
        half_finger = (BASE_M + depth_m) / 2
        for name in ("left", "right"):
            self._box(name, depth_m - half_finger, (half_finger, FINGER_M / 2, HEIGHT_M / 2))
        self._box("palm", -BASE_M - FINGER_M / 2, (FINGER_M / 2, width_m / 2 + FINGER_M, HEIGHT_M / 2))

    def _box(self, name: str, x: float, half_sides: Sequence[float]) -> None:
        model, geom = self.world.model, self.world.model.geom(name).id
        model.geom_pos[geom, 0], model.geom_size[geom] = x, half_sides
        model.geom_aabb[geom, 3:], model.geom_rbound[geom] = half_sides, np.linalg.norm(half_sides)

    def jump(self, pose: Floats, opening_m: float) -> None:
        """Put the hand somewhere at rest, open."""
        self.aim(pose)
        self.open_to(opening_m)
        data = self.world.data
        data.joint("hand").qpos[:] = [*data.mocap_pos[0], *data.mocap_quat[0]]
        data.joint("hand").qvel[:] = 0.0
        for name in ("left", "right"):
            data.joint(name).qpos[:], data.joint(name).qvel[:] = opening_m / 2, 0.0
        self.world.refresh()

    def aim(self, pose: Floats) -> None:
        """Move the target that the palm follows."""
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        self.world.data.mocap_pos[0], self.world.data.mocap_quat[0] = pose[:3, 3], (w, x, y, z)

    def open_to(self, opening_m: float) -> None:
        """Set the opening that the fingers are driven to; 0 closes them as far as they go."""
        self.world.data.ctrl[:] = opening_m / 2

    def touches(self) -> list[set[int]]:
        """Return which solids (by index) the left and the right finger touch."""
        model, contact = self.world.model, self.world.data.contact
        bodies = model.geom_bodyid[np.asarray(contact.geom).reshape(-1, 2)]
        touching = bodies[np.asarray(contact.dist) <= 0]
        found = []
        for name in ("left", "right"):
            finger = model.body(name).id
            other = np.concatenate([touching[touching[:, 0] == finger, 1], touching[touching[:, 1] == finger, 0]])
            found.append({int(body) - 1 for body in other if 1 <= body <= len(self.world.solids)})
        return found


def build_world_with_hand(solids: Sequence[Solid], grip: Grip | None = None) -> Hand:
    """Return a hand above a table with solids, which lie where `hand.world.place` puts them."""
    chosen = grip or Grip()
    return Hand(build_world(solids, extra=lambda spec: _add_hand(spec, chosen)), chosen)


def _add_hand(spec: Any, grip: Grip) -> None:
    import mujoco

    target = spec.worldbody.add_body(name="target", mocap=True, pos=[0, 0, 1])
    palm = spec.worldbody.add_body(name="hand", pos=[0, 0, 1], gravcomp=1)
    palm.add_freejoint(name="hand")
    # With priority its own friction counts, not the larger of both; 4: sliding and spinning.
    touch = {"priority": 1, "condim": 4, "friction": [grip.friction, _PATCH_M * grip.friction, 0.0], "group": SEEN}
    box = mujoco.mjtGeom.mjGEOM_BOX
    palm.add_geom(name="palm", type=box, size=[0.005, 0.06, 0.01], pos=[-0.025, 0, 0], mass=_PALM_KG, **touch)
    # A wrist, for the eye only: the evaluator's gripper has none.
    wrist = {"group": SEEN, "contype": 0, "conaffinity": 0, "mass": 0.0}
    along = [-0.03, 0, 0, -0.12, 0, 0]
    palm.add_geom(name="wrist", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.014, 0, 0], fromto=along, **wrist)
    for name, side in (("left", 1.0), ("right", -1.0)):
        finger = palm.add_body(name=name, gravcomp=1)
        reach = [0.0, MAX_WIDTH_M / 2 + FINGER_M]
        finger.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, side, 0], range=reach, limited=1, armature=0.05
        )
        at = [0.01, side * FINGER_M / 2, 0]
        finger.add_geom(name=name, type=box, size=[0.03, FINGER_M / 2, 0.01], pos=at, mass=_FINGER_KG, **touch)
        drive = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        drive.set_to_position(kp=_STIFFNESS, kv=_DAMPING)
        drive.forcelimited, drive.forcerange = 1, [-grip.force_N, grip.force_N]
    weld = spec.add_equality(type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY)
    weld.name1, weld.name2, weld.solref = target.name, palm.name, _WELD
    weld.data[:11] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    pair = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT)
    pair.objtype, pair.name1, pair.name2 = mujoco.mjtObj.mjOBJ_JOINT, "left", "right"
    pair.data[:2], pair.solref = [0, 1], _WELD
