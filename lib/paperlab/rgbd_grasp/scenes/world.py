"""A table and solids on it as a MuJoCo model: physics on their convex parts, rays on their meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.scenes.solids import Solid

if TYPE_CHECKING:
    import mujoco

SEEN, UNSEEN = 1, 3  # groups of geometry that rays hit, and that only physics knows
DENSITY = 400.0  # kg/m³: light plastic and wood, 40 to 80 g an object
STEP_S = 0.002
_STIFF = (0.008, 1.0)  # contacts' time constant (s) and damping ratio: at rest they give way by less than 0.1 mm


@dataclass(frozen=True)
class Contact:
    """Friction of everything with everything: sliding, and rolling and spinning in meters."""

    sliding: float = 0.5
    spinning_m: float = 0.004
    rolling_m: float = 0.001

    def __post_init__(self) -> None:
        if min(self.sliding, self.spinning_m, self.rolling_m) < 0:
            raise ValueError(f"Contact: got {self}, needs coefficients of 0 or more")


@dataclass(frozen=True, eq=False)
class World:
    """A compiled model and its state; body i + 1 is `solids[i]`, poses are (n, 4, 4) in the table's frame."""

    solids: tuple[Solid, ...]
    model: mujoco.MjModel
    data: mujoco.MjData

    @property
    def poses(self) -> Floats:
        """Where the solids are."""
        count = len(self.solids)
        rotations = self.data.xmat[1 : count + 1].reshape(-1, 3, 3)
        return np.stack([rigid(r, p) for r, p in zip(rotations, self.data.xpos[1 : count + 1], strict=True)])

    def place(self, poses: ArrayLike) -> None:
        """Put the solids somewhere, at rest."""
        for index, pose in enumerate(floats("poses", poses, len(self.solids), 4, 4)):
            self.place_one(index, pose)
        self.refresh()

    def place_one(self, index: int, pose: Floats) -> None:
        """Put one solid somewhere, at rest; call `refresh` before anything reads positions."""
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        self.data.qpos[7 * index : 7 * index + 7] = [*pose[:3, 3], w, x, y, z]
        self.data.qvel[6 * index : 6 * index + 6] = 0.0

    def refresh(self) -> None:
        """Compute everything that follows from positions and velocities."""
        import mujoco

        mujoco.mj_forward(self.model, self.data)

    def step(self, count: int = 1) -> None:
        """Advance physics by `count` steps of 2 ms."""
        import mujoco

        mujoco.mj_step(self.model, self.data, count)

    def speeds(self) -> Floats:
        """Return the speeds (n,) of the solids' origins in m/s."""
        count = len(self.solids)
        return np.linalg.norm(self.data.qvel[: 6 * count].reshape(count, 6)[:, :3], axis=1)

    def deepest_m(self) -> float:
        """Return how far the deepest contact goes in, 0 where nothing touches."""
        return max(0.0, -float(self.data.contact.dist.min(initial=0.0)))


Extra = Callable[[Any], None]  # adds to the specification after the solids, such as a gripper or walls


def build_world(solids: Sequence[Solid], contact: Contact | None = None, extra: Extra | None = None) -> World:
    """Return a world with a table at z = 0 and `solids` at the origin; raises ValueError for a solid that has no hull.

    Imports mujoco, which takes a moment the first time.
    """
    import mujoco

    contact = contact or Contact()
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0
    friction = [contact.sliding, contact.spinning_m, contact.rolling_m]
    spec.default.geom.friction, spec.default.geom.condim = friction, 6
    spec.default.geom.solref = _STIFF
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], group=SEEN)
    for index, solid in enumerate(solids):
        body = spec.worldbody.add_body(name=f"solid {index}", pos=[0, 0, 0])
        body.add_freejoint()
        _add_meshes(spec, body, solid, index)
    if extra:
        extra(spec)
    try:
        model = spec.compile()
    except ValueError as error:
        raise ValueError(f"solids: MuJoCo refuses them: {error}") from None
    return World(tuple(solids), model, mujoco.MjData(model))


def _add_meshes(spec: Any, body: Any, solid: Solid, index: int) -> None:
    import mujoco

    def add(name: str, mesh: Any, **options: Any) -> None:
        spec.add_mesh(name=name, uservert=mesh.vertices.ravel(), userface=mesh.faces.ravel().astype(np.int32))
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **options)

    add(f"{index} seen", solid.mesh, group=SEEN, contype=0, conaffinity=0, density=0.0)
    for k, part in enumerate(solid.parts):
        add(f"{index} part {k}", part, group=UNSEEN, density=DENSITY)
