"""One call for a user's own image: color, depth and intrinsics in, ranked grasps and a picture out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperlab.rgbd_grasp.geometry.cameras import Camera, metric_depth
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.network.inputs import Bytes
from paperlab.rgbd_grasp.prediction.avn import Avn
from paperlab.rgbd_grasp.search.pipeline import Settings, grasps_from_heatmap
from paperlab.rgbd_grasp.search.workspace import MaskKind, find_workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Prediction:
    """Grasps, best first, in the camera's frame, and what led to them."""

    grasps: GraspGroup
    mask: MaskKind  # the workspace that was searched; "gt" is privileged
    counts: dict[str, int]  # seeds and what became of them
    heatmap: Floats  # (C, rows, columns)
    rgb: Bytes
    camera: Camera

    def picture(self, best: int = 10) -> Figure:
        """Return the image with the `best` grasps on it, beside the heatmap's sum."""
        from paperlab.rgbd_grasp.pictures import prediction_panel

        return prediction_panel(self.rgb, self.camera, self.grasps[:best], self.heatmap, self.summary)

    @property
    def summary(self) -> str:
        """One line: how many grasps, from what, in which workspace."""
        counts = ", ".join(f"{value} {name}" for name, value in self.counts.items() if name != "grasps")
        return f"{len(self.grasps)} grasps; workspace: {self.mask}; {counts}"


def predict(
    rgb: NDArray[Any],
    depth: NDArray[Any],
    K: ArrayLike,
    depth_scale: float = 1000.0,
    *,
    avn: Avn | None = None,
    mask: MaskKind = "depth_plane",
    segmentation: NDArray[Any] | None = None,
    settings: Settings | None = None,
) -> Prediction:
    """Return ranked grasps for one aligned pair of images.

    `rgb` (H, W, 3) is uint8, in the order red, green, blue; `depth` (H, W) is in units of which `depth_scale` make a
    meter, 0 for holes; `K` (3, 3) the intrinsics in pixels of these images. `avn` is a trained net, such as
    `Avn.load(path)`; without one `default_avn` is used, which is trained at its first use. Mask "gt" needs
    `segmentation` (H, W), 0 for the background.

    Raises:
        ValueError: wrong dtypes or shapes, NaN, an empty depth image, units or intrinsics that do not fit.
    """
    image = checked_rgb(rgb)
    metric = metric_depth(_checked_depth(depth, image), depth_scale)
    camera = checked_camera(K, image)
    labels = _checked_labels(segmentation, image)
    if avn is None:
        from paperlab.rgbd_grasp.prediction.default import default_avn

        avn = default_avn()
    workspace = find_workspace(mask, avn.config.grid, segmentation=labels, depth_m=metric, camera=camera)
    heatmap = avn.heatmap(image, metric, camera)
    ranked = grasps_from_heatmap(heatmap, metric, camera, avn.anchors, settings or Settings(), workspace)
    return Prediction(ranked.grasps, ranked.mask, ranked.counts, heatmap, image, camera)


def checked_rgb(rgb: NDArray[Any]) -> Bytes:
    """Return a color image (H, W, 3) of uint8; raises ValueError that says how to make one."""
    image = np.asarray(rgb)
    if image.ndim == 3 and image.shape[2] == 4:
        raise ValueError(f"rgb: got shape {image.shape}, with an alpha channel; pass rgb[..., :3]")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = "; pass rgb.transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise ValueError(f"rgb: got shape {image.shape}, needs (H, W, 3){hint}")
    if image.dtype != np.uint8:
        hint = "; pass (rgb * 255).astype('uint8')" if image.dtype.kind == "f" and image.max() <= 1 else ""
        raise ValueError(f"rgb: got {image.dtype}, needs uint8 from 0 to 255{hint}")
    return np.ascontiguousarray(image)


def _checked_depth(depth: NDArray[Any], rgb: Bytes) -> NDArray[Any]:
    raw = np.asarray(depth)
    if raw.ndim == 3 and raw.shape[2] == 1:
        raise ValueError(f"depth: got shape {raw.shape}, needs (H, W); pass depth[..., 0]")
    if raw.ndim == 2 and raw.shape != rgb.shape[:2]:
        raise ValueError(f"depth: got shape {raw.shape}, rgb has {rgb.shape[:2]}; align the depth to the color camera")
    if raw.dtype.kind == "f" and np.isnan(raw).any():
        holes = int(np.isnan(raw).sum())
        raise ValueError(f"depth: holds NaN in {holes} places; mark holes by 0, as np.nan_to_num(depth) does")
    return raw


def checked_camera(K: ArrayLike, rgb: Bytes) -> Camera:
    """Return the camera of an image; raises ValueError where the intrinsics are of another image size."""
    height, width = rgb.shape[:2]
    camera = Camera.from_matrix(K, width, height)
    if not (0.1 < camera.cx / width < 0.9 and 0.1 < camera.cy / height < 0.9):
        raise ValueError(
            f"K: its principal point ({camera.cx:g}, {camera.cy:g}) is at the edge of the image of {width} x {height}; "
            "needs the intrinsics at this image's size"
        )
    return camera


def _checked_labels(segmentation: NDArray[Any] | None, rgb: Bytes) -> NDArray[Any] | None:
    if segmentation is None:
        return None
    labels = np.asarray(segmentation)
    if labels.shape != rgb.shape[:2] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"segmentation: got {labels.dtype} of shape {labels.shape}, needs integers {rgb.shape[:2]}, as rgb has"
        )
    return labels
