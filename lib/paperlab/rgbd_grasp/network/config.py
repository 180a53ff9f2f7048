"""Sizes of the Angle-View Net: the paper's, one for two CPU cores, and a tiny one for rehearsals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors
from paperlab.rgbd_grasp.geometry.checks import one_of
from paperlab.rgbd_grasp.labels.heatmap import CellGrid

Modality = Literal["rgb", "normals", "rgb_normals", "depth"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
Block = Literal["bottleneck", "basic"]
Head = Literal["3x3", "1x1"]
CELL_PX = 4  # of the network's input, in each direction
_STRIDE = 32  # of the encoder


@dataclass(frozen=True)
class AvnConfig:
    """An Angle-View Net; the defaults are the paper's (text near Fig. 5, and the released code).

    `image` is the input's width and height in pixels, `width` the stem's channels, `blocks` the residual blocks of
    the four stages. The head scores a cell by one 3x3 convolution or, cheaper, by a narrow 3x3 and a 1x1.
    """

    modality: Modality = "rgb"
    views: int = 60
    angles: int = 6
    image: tuple[int, int] = (384, 288)
    width: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    block: Block = "bottleneck"
    head: Head = "3x3"

    def __post_init__(self) -> None:
        for name, allowed in (("modality", Modality), ("block", Block), ("head", Head)):
            one_of(name, getattr(self, name), get_args(allowed))
        if any(side < _STRIDE or side % _STRIDE for side in self.image):
            raise ValueError(f"image: got {self.image}, needs a width and a height that are multiples of {_STRIDE}")
        if min(self.views, self.angles, self.width, *self.blocks) < 1 or self.width % 4:
            raise ValueError(f"AvnConfig: needs a width in multiples of 4 and positive numbers, got {self}")

    @property
    def classes(self) -> int:
        """The number of orientations, views times angles."""
        return self.views * self.angles

    @property
    def grid(self) -> CellGrid:
        """The heatmap's cells."""
        return CellGrid(self.image[0] // CELL_PX, self.image[1] // CELL_PX)

    @property
    def anchors(self) -> Anchors:
        """The orientations of the classes."""
        return avn_anchors(self.views, self.angles)


FULL = AvnConfig()
SMALL = AvnConfig(image=(256, 192), width=32, blocks=(2, 2, 2, 2), block="basic", head="1x1")
TINY = AvnConfig(views=12, angles=4, image=(128, 96), width=8, blocks=(1, 1, 1, 1), block="basic", head="1x1")
