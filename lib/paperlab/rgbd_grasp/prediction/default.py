"""The net that `predict` uses where none is given: small, for RGB, trained on generated scenes."""

from __future__ import annotations

from functools import lru_cache

from paperlab.lab.paths import cache_dir
from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.learning.samples import collect, labeled_views
from paperlab.rgbd_grasp.learning.trained import trained
from paperlab.rgbd_grasp.network.config import SMALL, AvnConfig
from paperlab.rgbd_grasp.prediction.avn import Avn
from paperlab.rgbd_grasp.scenes import Generated, Sizes, make_dataset

SCENES, VALIDATION_SCENES = 60, 6


@lru_cache(maxsize=1)
def default_avn(
    config: AvnConfig = SMALL,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    sizes: Sizes = Sizes(),  # noqa: B008 - frozen
    scenes: int = SCENES,
) -> Avn:
    """Return a net trained on generated scenes, the last tenth of them for validation.

    The first call makes the scenes and trains, with progress bars, some five minutes on one core; later ones find
    both in the cache (`PAPERLAB_CACHE`). It knows made-up objects only: expect little of it on real photographs.
    """
    folder = cache_dir() / "rgbd_grasp" / f"scenes-{sizes.views}-{sizes.width}x{sizes.height}"
    ids = make_dataset(folder, scenes, "train", 0, sizes)
    data = Generated(folder)
    samples = collect(labeled_views(data, ids, data.antipodal), config)
    held_out = ids[-max(scenes * VALIDATION_SCENES // SCENES, 1) :]
    return trained(config, *samples.split(held_out), recipe, progress=True).avn
