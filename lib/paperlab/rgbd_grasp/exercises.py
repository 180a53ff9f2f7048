"""Checkers of the exercises in `60_grasp_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from paperlab.lab.exercises import expect
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats


def check_back_project(back_project: Callable[[float, float, float, Floats], Floats]) -> None:
    """Check `back_project(u, v, z, K)`: the point (3,) that a pixel sees at depth z."""
    matrix = np.array([[300.0, 0, 160], [0, 310.0, 118], [0, 0, 1]])
    for u, v, z in ((160, 118, 0.5), (0, 0, 0.6), (319.0, 100.5, 1.2)):
        point = np.asarray(back_project(u, v, z, matrix), dtype=float)
        expect(point.shape == (3,), "return three numbers: x, y, z")
        expect(abs(point[2] - z) < 1e-9, "depth is z itself, not the length of the ray")
        seen = matrix @ point / point[2]
        expect(
            bool(np.allclose(seen[:2], (u, v), atol=1e-6)),
            f"the point appears at ({seen[0]:.1f}, {seen[1]:.1f}) instead of ({u}, {v}): subtract the principal point "
            "before you divide by the focal length",
        )


def check_same_grasp(angle: Callable[[Floats, Floats], float]) -> None:
    """Check `angle(a, b)`: degrees between two grasps' rotations (3, 3), the jaws being interchangeable."""
    rng = np.random.default_rng(0)
    twin = Rotation.from_rotvec([np.pi, 0, 0])
    for degrees in (0.0, 10.0, 80.0):
        axis = rng.normal(size=3)
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis))
        a = Rotation.random(random_state=1)
        b = turn * a
        wanted = np.rad2deg(min((b * a.inv()).magnitude(), (b * (a * twin).inv()).magnitude()))
        found = float(angle(a.as_matrix(), b.as_matrix()))
        expect(abs(found - wanted) < 1e-3, f"a turn by {wanted:.0f}° gives {found:.1f}; trace R = 1 + 2 cos(angle)")
        swapped = float(angle(a.as_matrix(), (b * twin).as_matrix()))
        expect(
            abs(swapped - wanted) < 1e-3,
            f"with the jaws swapped the same grasp is {swapped:.0f}° away instead of {wanted:.0f}°: try both twins",
        )


def check_collides(collides: Callable[[Floats, float, float], bool]) -> None:
    """Check `collides(points, width, depth)`: whether a finger hits one of the points (P, 3).

    Fingers are 1 cm thick, 6 cm long, 2 cm high.
    """
    cases = (
        ((0.0, 0.0, 0.0), False, "what lies between the fingers is what we want to hold"),
        ((0.0, 0.035, 0.0), True, "a finger reaches from width/2 to width/2 + 1 cm along y"),
        ((0.0, -0.035, 0.0), True, "there are two fingers: look at |y|"),
        ((0.0, 0.045, 0.0), False, "beyond width/2 + 1 cm there is no finger any more"),
        ((0.05, 0.035, 0.0), False, "beyond the fingertips, at x = depth, there is nothing to hit"),
        ((-0.03, 0.035, 0.0), False, "fingers begin 6 cm before their tips"),
        ((0.0, 0.035, 0.015), False, "fingers are 2 cm high: |z| < 1 cm"),
    )
    for point, wanted, hint in cases:
        found = bool(collides(np.array([point]), 0.06, 0.04))
        expect(found == wanted, f"point {point}: {found}, should be {wanted}; {hint}")
    together = np.array([case[0] for case in cases])
    expect(bool(collides(together, 0.06, 0.04)), "one point in a finger is enough")


def check_choose(choose: Callable[[Bools, Floats, Floats], tuple[int, int] | None]) -> None:
    """Check `choose(free, distances, widths)`: the free candidate (row, column) farthest out, then widest."""
    distances, widths = np.array([-0.02, -0.01, 0.0, 0.01, 0.02]), np.arange(1, 11) / 100
    rng = np.random.default_rng(2)
    for share in (0.05, 0.3, 0.9):
        free = rng.random((5, 10)) < share
        if not free.any():
            continue
        found = choose(free, distances, widths)
        expect(found is not None and bool(free[found]), "choose a candidate that is free")
        assert found is not None
        best = max((-distances[i], widths[j]) for i, j in zip(*np.nonzero(free), strict=True))
        got = (-distances[found[0]], widths[found[1]])
        expect(got[0] == best[0], "distance comes first: the smallest, farthest from the object")
        expect(got[1] == best[1], "at that distance take the widest opening that is free")
    expect(choose(np.zeros((5, 10), dtype=bool), distances, widths) is None, "without a survivor return None")


def check_ap(ap: Callable[[Floats], float]) -> None:
    """Check `ap(frictions)`: the metric of a frame, in percent, from the smallest frictions (M,), best grasp first."""
    rng = np.random.default_rng(3)
    levels = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
    for count in (50, 20, 0):
        frictions = rng.choice([-1.0, *levels], size=count)
        shares = [np.sum((frictions[:k] > 0) & (frictions[:k] <= level)) / k for level in levels for k in range(1, 51)]
        found, wanted = float(ap(frictions)), 100 * float(np.mean(shares))
        hint = "with fewer than 50 grasps still divide by k" if count < 50 else "mean over k = 1 ... 50 and 6 frictions"
        expect(abs(found - wanted) < 1e-6, f"{count} grasps give {found:.2f} instead of {wanted:.2f}; {hint}")
