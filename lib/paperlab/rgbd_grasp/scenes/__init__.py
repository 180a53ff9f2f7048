"""Generated scenes: solids in three families, dropped by physics, seen by cameras, in GraspNet-1Billion's layout."""

from paperlab.rgbd_grasp.scenes.catalog import catalog, object_ids
from paperlab.rgbd_grasp.scenes.dataset import Generated, make_dataset, make_datasets
from paperlab.rgbd_grasp.scenes.generate import Scene, Sizes, make_scene, take_views

__all__ = [
    "Generated",
    "Scene",
    "Sizes",
    "catalog",
    "make_dataset",
    "make_datasets",
    "make_scene",
    "object_ids",
    "take_views",
]
