"""Piles: solids dropped one by one between walls, which are then taken away, until everything lies still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.world import STEP_S, UNSEEN, Contact, World, build_world

STILL_M_S = 0.002  # the fastest that a solid may still move
_PARKED_M = 100.0  # above the table, where solids fall freely until it is their turn
_CONTACT = Contact(sliding=0.7, spinning_m=0.01, rolling_m=0.002)


@dataclass(frozen=True)
class Pile:
    """How solids are dropped; lengths in meters, times in seconds."""

    spread_m: float = 0.09  # half the side of the square over which they fall
    walls_m: float = 0.15  # half the side of the walls
    reach_m: float = 0.2  # from the middle, beyond which a solid has rolled away
    above_m: float = 0.02  # the highest solid
    interval_s: float = 0.22
    settle_s: float = 2.0  # at most
    attempts: int = 20

    def __post_init__(self) -> None:
        lengths = (self.spread_m, self.above_m, self.interval_s, self.settle_s)
        if min(lengths) <= 0 or not self.spread_m < self.walls_m <= self.reach_m or self.attempts < 1:
            raise ValueError(f"Pile: needs positive values and spread_m < walls_m <= reach_m, got {self}")


def drop(solids: Sequence[Solid], rng: np.random.Generator, pile: Pile | None = None) -> Floats:
    """Return poses (n, 4, 4), in the table's frame, of all solids after they were dropped and came to rest.

    Raises RuntimeError where some solid rolls away or none comes to rest, `attempts` times in a row.
    """
    pile = pile or Pile()
    if not solids:
        raise ValueError("solids: got none, needs at least one")
    world = build_world(solids, _CONTACT, lambda spec: _add_walls(spec, pile.walls_m))
    for _ in range(pile.attempts):
        poses = _dropped(world, rng, pile)
        if poses is not None:
            return poses
    names = ", ".join(solid.name for solid in solids)
    raise RuntimeError(f"drop: {names} did not come to rest in {pile.attempts} attempts; needs fewer or other solids")


def _add_walls(spec: Any, half_m: float) -> None:
    import mujoco

    for name, axis, sign in (("w", 0, -1), ("e", 0, 1), ("s", 1, -1), ("n", 1, 1)):
        size, pos = [half_m, half_m, 0.5], [0.0, 0.0, 0.5]
        size[axis], pos[axis] = 0.02, sign * (half_m + 0.02)
        spec.worldbody.add_geom(name=f"wall {name}", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos, group=UNSEEN)


def _set_walls(world: World, up: bool) -> None:
    walls = [world.model.geom(f"wall {name}").id for name in "wesn"]
    world.model.geom_contype[walls] = world.model.geom_conaffinity[walls] = int(up)


def _dropped(world: World, rng: np.random.Generator, pile: Pile) -> Floats | None:
    import mujoco

    count = len(world.solids)
    mujoco.mj_resetData(world.model, world.data)
    _set_walls(world, up=True)
    turns = random_rotations(count, rng)
    where = rng.uniform(-pile.spread_m, pile.spread_m, (count, 2))
    waiting = [rigid(np.eye(3), (i, 0.0, _PARKED_M)) for i in range(count)]
    world.place(waiting)
    for index, solid in enumerate(world.solids):
        top = max([0.0, *(_top_m(world, i) for i in range(index))])
        bottom = (solid.mesh.vertices @ turns[index].T)[:, 2].min()
        world.place_one(index, rigid(turns[index], (*where[index], top + pile.above_m - bottom)))
        for later in range(index + 1, count):
            world.place_one(later, waiting[later])
        world.step(round(pile.interval_s / STEP_S))
    _set_walls(world, up=False)
    for _ in range(round(pile.settle_s / (50 * STEP_S))):
        world.step(50)
        if world.speeds().max() < STILL_M_S:
            break
    else:
        return None
    world.step(100)
    return world.poses if world.speeds().max() < STILL_M_S and _all_here(world, pile) else None


def _top_m(world: World, index: int) -> float:
    pose = world.poses[index]
    return float((world.solids[index].mesh.vertices @ pose[2, :3]).max() + pose[2, 3])


def _all_here(world: World, pile: Pile) -> bool:
    at = world.poses[:, :3, 3]
    return bool((np.linalg.norm(at[:, :2], axis=1) < pile.reach_m).all() and (at[:, 2] > 0).all())
