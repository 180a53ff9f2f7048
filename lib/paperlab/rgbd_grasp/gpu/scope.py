"""How much the GPU run does, in full and in rehearsal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.network.config import FULL as FULL_NET
from paperlab.rgbd_grasp.network.config import TINY, AvnConfig, Modality
from paperlab.rgbd_grasp.scenes import Sizes


@dataclass(frozen=True)
class Scope:
    """Scenes, nets and seeds of a run; `views` of each training scene, `judged_views` of each test scene.

    The last `validation_scenes` of the training split are for validation. Test splits are judged, never learned from.
    """

    net: AvnConfig = FULL_NET
    modalities: tuple[Modality, ...] = ("rgb", "rgb_normals", "depth", "normals")
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe = field(default_factory=lambda: Recipe(iterations=2500, batch=16, learning_rate=1e-3, threads=8))
    sizes: Sizes = field(default_factory=lambda: Sizes(views=30, width=384, height=288))
    scenes: Mapping[str, int] = field(default_factory=lambda: {"train": 100, "seen": 30, "similar": 30, "novel": 30})
    scenes_per_cell: int = 25
    validation_scenes: int = 8
    judged_views: int = 3
    max_friction: float = 0.2
    batches: tuple[int, ...] = (1, 8, 16, 32)
    repeats: int = 20
    data_seed: int = 0
    workers: int = field(default_factory=lambda: max((os.cpu_count() or 1) - 1, 1))

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits that are judged."""
        return tuple(split for split in self.scenes if split != "train")

    def sizes_of(self, split: str) -> Sizes:
        """Return the sizes of a split's scenes."""
        return self.sizes if split == "train" else replace(self.sizes, views=self.judged_views)

    def net_for(self, modality: Modality) -> AvnConfig:
        """Return the net's configuration for a modality."""
        return replace(self.net, modality=modality)


FULL = Scope()


def smoke() -> Scope:
    """Return the rehearsal: tiny nets on the fewest scenes."""
    return Scope(
        net=TINY,
        modalities=("rgb", "rgb_normals"),
        seeds=(0,),
        recipe=Recipe(iterations=3, batch=2, learning_rate=1e-2, validate_every=3),
        sizes=Sizes(views=2, width=128, height=96, objects=6, grasps=200),
        scenes={"train": 2, "seen": 1},
        scenes_per_cell=2,
        validation_scenes=1,
        judged_views=1,
        batches=(2,),
        repeats=1,
        workers=1,
    )
