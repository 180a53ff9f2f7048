"""The Angle-View Net as a detector: an image to a heatmap, and with depth and search to ranked grasps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.network.avn import AngleViewNet, build
from paperlab.rgbd_grasp.network.config import AvnConfig
from paperlab.rgbd_grasp.network.inputs import Bytes, as_images, depth_image, normal_image, normalized, resized_rgb
from paperlab.rgbd_grasp.search.pipeline import Ranked, Settings, grasps_from_heatmap
from paperlab.rgbd_grasp.search.workspace import MaskKind, find_workspace


class Avn:
    """A trained net; `logits`: a sigmoid makes its outputs probabilities, which it does not after training by MSE."""

    def __init__(self, net: AngleViewNet, logits: bool = True) -> None:
        self.net, self.logits = net.eval().requires_grad_(False), logits
        self.config, self.anchors = net.config, net.config.anchors

    def heatmap(self, rgb: Bytes, depth_m: Floats, camera: Camera) -> Floats:
        """Return the scores (C, rows, columns) of an image (H, W, 3) and depth (H, W) in meters, of any size.

        A net for RGB does not look at the depth.
        """
        size, modality = self.config.image, self.config.modality
        device = next(self.net.parameters()).device
        parts: list[NDArray[Any]] = []
        if modality.startswith("rgb"):
            parts.append(resized_rgb(rgb, size))
        if modality == "depth":
            parts.append(depth_image(depth_m, size))
        if modality.endswith("normals"):
            parts.append(normal_image(depth_m, camera, size))
        images = torch.cat([as_images(part[None], device) for part in parts], dim=1)
        with torch.no_grad():
            outputs = self.net(normalized(images, modality))[0].float()
        heatmap: Floats = (outputs.sigmoid() if self.logits else outputs).cpu().numpy()
        return heatmap

    def detect(self, view: View, settings: Settings | None = None, mask: MaskKind = "depth_plane") -> Ranked:
        """Return ranked grasps in a view's camera frame; of its labels only mask "gt" uses any, the segmentation."""
        workspace = find_workspace(
            mask, self.config.grid, segmentation=view.segmentation, depth_m=view.depth_m, camera=view.camera
        )
        heatmap = self.heatmap(view.rgb, view.depth_m, view.camera)
        return grasps_from_heatmap(heatmap, view.depth_m, view.camera, self.anchors, settings or Settings(), workspace)

    def save(self, path: Path, about: Mapping[str, str] | None = None) -> Path:
        """Write weights and configuration as one safetensors file."""
        config = json.dumps(asdict(self.config) | {"logits": self.logits})
        state = {name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()}
        return write_atomic(path, save(state, {**(about or {}), "config": config}))

    @classmethod
    def load(cls, path: Path | str) -> Avn:
        """Read a detector; raises ValueError, naming the file, where there is none in it."""
        return cls.load_with_metadata(Path(path))[0]

    @classmethod
    def load_with_metadata(cls, path: Path) -> tuple[Avn, dict[str, str]]:
        """Read a detector and what was written about it."""
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, str] = file.metadata() or {}
                settings: dict[str, Any] = json.loads(about["config"])
                logits = settings.pop("logits")
                net = build(AvnConfig(**settings | {k: tuple(settings[k]) for k in ("image", "blocks")}))
                net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path}: holds no Angle-View Net ({first}); needs a file that Avn.save wrote") from None
        return cls(net, logits), about
