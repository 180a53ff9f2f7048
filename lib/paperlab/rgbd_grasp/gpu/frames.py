"""Generated frames of the GPU run: made where they are missing, encoded once for all modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.gpu.scope import Scope
from paperlab.rgbd_grasp.learning.samples import Samples, collect, join, labeled_views
from paperlab.rgbd_grasp.scenes import Generated, make_dataset


@dataclass(frozen=True)
class Frames:
    """The data of a scope below `folder`; whatever is asked for is made first where it is not there."""

    scope: Scope
    folder: Path

    def tree(self, split: str) -> Path:
        """Return the folder of a split's scenes, in the data set's layout; all test splits share one."""
        return self.folder / ("train" if split == "train" else "test")

    def make(self, split: str, scenes: int) -> list[int]:
        """Make and encode the first `scenes` scenes of a split; return their ids."""
        scope, tree = self.scope, self.tree(split)
        sizes, workers = scope.sizes_of(split), scope.workers
        ids = make_dataset(tree, scenes, split, scope.data_seed, sizes, workers=workers, progress=False)
        missing = [i for i in ids if not self._encoded(i).exists()]
        in_processes(partial(encode, self, tree), missing, workers)
        return ids

    def _encoded(self, scene_id: int) -> Path:
        return self.folder / "samples" / f"scene_{scene_id:04d}.npz"

    def samples(self, split: str) -> Samples:
        """Return all samples of a split."""
        return join([Samples.load(self._encoded(i)) for i in self.make(split, self.scope.scenes[split])])

    def learning(self) -> tuple[Samples, Samples]:
        """Return the samples to learn from and those for validation, of other scenes."""
        train = self.samples("train")
        return train.split(np.unique(train.scenes)[-self.scope.validation_scenes :])

    def judged(self, split: str) -> Iterator[View]:
        """Yield the views of a test split."""
        ids = self.make(split, self.scope.scenes[split])
        data = reader(self.tree(split))
        for scene_id in ids:
            for frame_id in range(data.frame_count(scene_id)):
                yield data.view(scene_id, frame_id)


@lru_cache(maxsize=2)
def reader(tree: Path) -> Generated:
    """Return the reader of this process, so that models are read once."""
    return Generated(tree)


def encode(frames: Frames, tree: Path, scene_id: int) -> None:
    """Encode one scene, normals included."""
    data, scope = reader(tree), frames.scope
    find: Callable[[View], object] = partial(data.antipodal, max_friction=scope.max_friction)
    pairs = labeled_views(data, [scene_id], find)  # type: ignore[arg-type]
    collect(pairs, replace(scope.net, modality="rgb_normals")).save(frames._encoded(scene_id))
