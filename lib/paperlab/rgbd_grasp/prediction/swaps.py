"""Views with one modality replaced, to see what a method looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.network.inputs import resized_rgb


def with_rgb_of(view: View, other: View) -> View:
    """Return the view with the color image of another scene, stretched to its size where they differ."""
    if other.scene_id == view.scene_id:
        raise ValueError(f"other: is of scene {other.scene_id} as well, needs a view of another scene")
    return replace(view, rgb=resized_rgb(other.rgb, (view.camera.width, view.camera.height)))


def with_noise_for_depth(view: View, rng: np.random.Generator) -> View:
    """Return the view with every measured depth replaced by noise, uniform over the range of the measured depths."""
    seen = view.depth_m > 0
    if not seen.any():
        raise ValueError("depth_m: is empty, every pixel is 0; needs at least one measured pixel")
    noise = rng.uniform(view.depth_m[seen].min(), view.depth_m[seen].max(), view.depth_m.shape)
    return replace(view, depth_m=np.where(seen, noise, 0.0))
