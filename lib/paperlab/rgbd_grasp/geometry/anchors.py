"""Views and in-plane angles: the discrete orientations of the network's classes and of the object labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints, floats, one_of
from paperlab.rgbd_grasp.geometry.rotations import TWIN, view_rotations

Symmetry = Literal["canonical", "official"]
SYMMETRIES = ("canonical", "official")
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def fibonacci_views(count: int) -> Floats:
    """Return `count` unit vectors (count, 3) spread evenly over the sphere, from z near -1 to z near 1."""
    if count < 1:
        raise ValueError(f"count: got {count}, needs at least 1 view")
    i = np.arange(count)
    z = (2 * i + 1) / count - 1
    radius = np.sqrt(1 - z * z)
    turn = 2 * np.pi * i * _GOLDEN
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=-1)


def hemisphere_views(count: int) -> Floats:
    """Return the `count` views with z < 0 out of 2·count on the sphere: from there one looks along +z."""
    views = fibonacci_views(2 * count)
    return views[views[:, 2] < 0]


@dataclass(frozen=True)
class Anchors:
    """Orientations from V views by A in-plane angles k·180°/A; class index = view·A + angle.

    A grasp seen from `view` approaches along -view. `rotations` is (V·A, 3, 3).
    """

    views: Floats  # (V, 3) unit vectors
    angle_count: int
    rotations: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        floats("views", self.views, None, 3)
        if self.angle_count < 1 or not len(self.views):
            raise ValueError(f"Anchors: got {len(self.views)} views by {self.angle_count} angles, needs one of each")
        towards = np.repeat(-self.views, self.angle_count, axis=0)
        angles = np.tile(self.angles, len(self.views))
        object.__setattr__(self, "rotations", view_rotations(towards, angles))

    @property
    def angles(self) -> Floats:
        """The in-plane angles (A,) in radians, in [0, π)."""
        return np.arange(self.angle_count) * np.pi / self.angle_count

    def __len__(self) -> int:
        return len(self.rotations)

    def nearest(self, rotations: ArrayLike, symmetry: Symmetry = "canonical") -> Ints:
        """Return the class (N,) whose rotation is nearest to each of `rotations` (N, 3, 3).

        "canonical" tries the grasp and its twin with the jaws swapped, which is the same grasp; "official" tries the
        rotation as it stands, as the released code does, although the angles span half a turn only.
        """
        one_of("symmetry", symmetry, SYMMETRIES)
        wanted = floats("rotations", rotations, None, 3, 3)
        flat = self.rotations.reshape(len(self), 9)
        trace = wanted.reshape(-1, 9) @ flat.T  # the largest trace of A'R is the smallest angle
        if symmetry == "canonical":
            trace = np.maximum(trace, (wanted @ TWIN).reshape(-1, 9) @ flat.T)
        return trace.argmax(axis=1)

    def neighbors(self, within_rad: float) -> Bools:
        """Return (C, C): which classes lie within `within_rad` of each other, the jaws being interchangeable."""
        flat = self.rotations.reshape(len(self), 9)
        trace = np.maximum(flat @ flat.T, (self.rotations @ TWIN).reshape(-1, 9) @ flat.T)
        return np.arccos((np.clip(trace, -1, 3) - 1) / 2) < within_rad


def label_anchors() -> Anchors:
    """Return GraspNet-1Billion's label orientations: 300 views over the whole sphere by 12 angles."""
    return Anchors(fibonacci_views(300), 12)


def avn_anchors(view_count: int = 60, angle_count: int = 6) -> Anchors:
    """Return the classes of the Angle-View Net: by default 60 views of the camera's hemisphere by 6 angles."""
    return Anchors(hemisphere_views(view_count), angle_count)
