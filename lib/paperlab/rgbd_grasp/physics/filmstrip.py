"""A pick as a strip of pictures, rendered without OpenGL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import Grasp, GraspGroup
from paperlab.rgbd_grasp.physics.hand import Grip, build_world_with_hand
from paperlab.rgbd_grasp.physics.pick import Motion, Outcome, pick
from paperlab.rgbd_grasp.scenes.generate import Scene
from paperlab.rgbd_grasp.scenes.looks import Material
from paperlab.rgbd_grasp.scenes.render import Quality, Renderer
from paperlab.rgbd_grasp.scenes.viewpoints import cropped_realsense, look_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Film = list[tuple[str, NDArray[np.uint8]]]  # phases and pictures (H, W, 3)
FILM = Quality(supersample=2, lamp_points=6, lamp_radius_m=0.06, blur_px=0.0, noise=0.0)
_METAL, _RUBBER = np.array([0.5, 0.52, 0.55]), np.array([0.14, 0.15, 0.17])


def _plain(color: Floats, gloss: float) -> Material:
    return Material("plain", np.stack([color, color]), 1.0, np.eye(3), np.zeros(3), gloss, np.zeros((2, 2, 2)))


def film_pick(
    scene: Scene,
    grasp: Grasp,
    *,
    grip: Grip | None = None,
    motion: Motion | None = None,
    camera: Camera | None = None,
    quality: Quality = FILM,
) -> tuple[Film, Outcome]:
    """Carry out a grasp, given in the table's frame, and return a picture at the end of each phase, and the outcome.

    The camera looks from a side where the jaws do not hide each other.
    """
    hand = build_world_with_hand(scene.solids, grip)
    hand.world.place(scene.poses)
    materials = (_plain(_METAL, 0.3), _plain(_METAL, 0.3), _plain(_RUBBER, 0.1), _plain(_RUBBER, 0.1))
    others = dict(zip(hand.geoms, materials, strict=True))
    renderer = Renderer(hand.world, scene.looks, quality, others)
    camera = camera or cropped_realsense(320, 240)
    pose = _side_view(grasp)
    film: Film = []
    outcome = pick(hand, grasp, motion, lambda phase: film.append((phase, renderer(camera, pose).rgb)))
    return film, outcome


def first_that_lifts(scene: Scene, grasps: GraspGroup) -> int | None:
    """Return the row of the first of ranked grasps, in the table's frame, that lifts something; None where none does.

    Every attempt starts from the scene as it lies, as a film's does.
    """
    for row, grasp in enumerate(grasps):
        hand = build_world_with_hand(scene.solids)
        hand.world.place(scene.poses)
        if pick(hand, grasp).success:
            return row
    return None


def _side_view(grasp: Grasp) -> Floats:
    """Return a camera's pose (4, 4) in the table's frame: between the closing axis and that across it, 30° above."""
    x, y, _ = grasp.rotation_matrix[:, 1]
    turn = np.arctan2(y, x) + np.deg2rad(-60) if np.hypot(x, y) > 1e-3 else 0.0
    target = np.array([*0.6 * grasp.translation[:2], 0.08])
    level, up = np.cos(np.pi / 6), np.sin(np.pi / 6)
    return look_at(target + 0.5 * np.array([level * np.cos(turn), level * np.sin(turn), up]), target)


def draw_film(film: Film, titles: Sequence[str] | None = None) -> Figure:
    """Return a figure of a film's pictures side by side, each under its phase."""
    from matplotlib.figure import Figure

    names = list(titles) if titles is not None else [f"{i + 1}  {name}" for i, (name, _) in enumerate(film)]
    if len(names) != len(film) or not film:
        raise ValueError(f"titles: got {len(names)} for {len(film)} pictures, needs one each, at least one")
    height, width, _ = film[0][1].shape
    figure = Figure(figsize=(2.5 * len(film), 2.5 * height / width + 0.3), layout="constrained")
    for axes, name, (_, picture) in zip(np.atleast_1d(figure.subplots(1, len(film))), names, film, strict=True):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    return figure
