"""What takes a view to ranked grasps: oracles, nets, priors, methods without learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from paperlab.rgbd_grasp.baselines.geometric import antipodal_sampler, random_orientation, surface_normal
from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.baselines.oracle import oracle_labels, oracle_search
from paperlab.rgbd_grasp.baselines.planar import planar_grasps
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.labels.heatmap import CellGrid
from paperlab.rgbd_grasp.noise import Noise, add_noise
from paperlab.rgbd_grasp.prediction.swaps import with_noise_for_depth, with_rgb_of
from paperlab.rgbd_grasp.scenes import Generated
from paperlab.rgbd_grasp.search.decode import decode
from paperlab.rgbd_grasp.search.pipeline import Settings, grasps_from_seeds
from paperlab.rgbd_grasp.search.workspace import MaskKind, find_workspace
from paperlab.rgbd_grasp.studies.material import NetSpec, samples, trained_net

if TYPE_CHECKING:
    from paperlab.rgbd_grasp.prediction.avn import Avn

ORACLE_FRICTION = 0.4  # the worst grasps that an oracle proposes; it prefers better ones
_TIES = 1e-3  # of a prior that many cells share
_OTHER = 7  # scenes on: whose color image is swapped in


@dataclass(frozen=True)
class Case:
    """A method and its setting; `net` tells size, training and seed, also where only its classes are used."""

    method: str
    net: NetSpec
    mask: MaskKind = "depth_plane"
    settings: Settings = field(default_factory=Settings)
    noise: Noise | None = None
    swap: str = ""  # "", "rgb" of another scene, or "depth" replaced by noise
    classes: tuple[int, int] | None = None  # views and angles of an oracle, where they are not the net's

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; use one of {', '.join(METHODS)}")
        if self.swap not in ("", "rgb", "depth"):
            raise ValueError(f"swap is {self.swap!r}; use 'rgb', 'depth' or nothing")


@dataclass(frozen=True, eq=False)
class Scene:
    """One frame as a case shows it to its method, with the random numbers that belong to the frame."""

    case: Case
    data: Generated
    view: View
    rng: np.random.Generator

    @cached_property
    def observation(self) -> Observation:
        """Depth, camera and workspace."""
        return _observed(self.view, self.case.mask, self.case.net.config.grid, self.case.settings)

    @property
    def anchors(self) -> Anchors:
        """The classes: the case's own, or its net's."""
        return avn_anchors(*self.case.classes) if self.case.classes else self.case.net.config.anchors

    def searched(self, heatmap: Floats) -> GraspGroup:
        """Return the grasps of a heatmap (C, rows, columns)."""
        seen, settings = self.observation, self.case.settings
        seeds = decode(heatmap, seen.depth_m, seen.camera, self.anchors, settings.decoding, seen.workspace.cells)
        return grasps_from_seeds(seeds, seen.cloud, settings, seen.workspace.kind).grasps


@lru_cache(maxsize=4)
def _observed(view: View, mask: MaskKind, grid: CellGrid, settings: Settings) -> Observation:
    """Return what all cases see that share a view and settings: they come one after the other."""
    found = find_workspace(mask, grid, segmentation=view.segmentation, depth_m=view.depth_m, camera=view.camera)
    return Observation(view.depth_m, view.camera, found, settings)


@lru_cache(maxsize=16)
def _shown(data: Generated, scene_id: int, frame_id: int, noise: Noise | None, swap: str) -> View:
    view = data.view(scene_id, frame_id)
    if noise is not None:
        seed = 1000 * scene_id + frame_id
        view = replace(view, depth_m=add_noise(view.depth_m, noise, seed, rgb=view.rgb))
    if swap == "rgb":
        ids = [i for i in data.scene_ids() if i // 30 == scene_id // 30 and i >= 100 and i != scene_id]
        view = with_rgb_of(view, data.view(ids[_OTHER % len(ids)], frame_id))
    elif swap == "depth":
        view = with_noise_for_depth(view, np.random.default_rng((scene_id, frame_id)))
    return view


def shown(case: Case, data: Generated, scene_id: int, frame_id: int) -> Scene:
    """Return a frame as a case shows it: with its noise, with its swap."""
    view = _shown(data, scene_id, frame_id, case.noise, case.swap)
    return Scene(case, data, view, np.random.default_rng((scene_id, frame_id)))


@lru_cache(maxsize=8)
def _heatmap(spec: NetSpec, view: View) -> Floats:
    heatmap = trained_net(spec).avn.heatmap(view.rgb, view.depth_m, view.camera)
    heatmap.flags.writeable = False  # many cases share it
    return heatmap


def _net(scene: Scene) -> GraspGroup:
    case, view = scene.case, scene.view
    # The noise of depth is nothing to a net for color: one heatmap serves all levels.
    noise = None if case.net.modality == "rgb" else case.noise
    seen = _shown(scene.data, view.scene_id, view.frame_id, noise, case.swap)
    return scene.searched(_heatmap(case.net, seen))


@lru_cache(maxsize=2)
def untrained(spec: NetSpec) -> Avn:
    """Return the case's net as it is before training."""
    from paperlab.rgbd_grasp.network.avn import build
    from paperlab.rgbd_grasp.prediction.avn import Avn

    return Avn(build(spec.config, spec.seed))


def _untrained(scene: Scene) -> GraspGroup:
    view = scene.view
    return scene.searched(untrained(scene.case.net).heatmap(view.rgb, view.depth_m, view.camera))


@lru_cache(maxsize=2)
def _prior(net: str, train_scenes: int) -> Floats:
    return samples(net, train_scenes)[0].class_prior()


def _class_prior(scene: Scene) -> GraspGroup:
    """Draw a class for every cell in proportion to the prior of the training scenes; frequent classes rank first.

    All that it sees of the picture is the workspace. With the same best classes in every cell most grasps would
    suppress each other. Which cells of a class come first is left to chance.
    """
    prior = _prior(scene.case.net.net, scene.case.net.train_scenes)
    cells = scene.observation.workspace.cells.shape
    drawn = scene.rng.choice(len(prior), size=cells, p=prior / prior.sum())
    heatmap = np.full((len(prior), *cells), -np.inf)
    scores = prior[drawn] * (1 + _TIES * scene.rng.random(cells))
    np.put_along_axis(heatmap, drawn[None], scores[None], axis=0)
    return scene.searched(heatmap)


def _oracle_heatmap(scene: Scene) -> GraspGroup:
    labels = scene.data.antipodal(scene.view, ORACLE_FRICTION)
    return oracle_search(labels, scene.observation, scene.anchors, scene.rng).grasps


def _oracle_labels(scene: Scene) -> GraspGroup:
    return oracle_labels(scene.data.antipodal(scene.view, ORACLE_FRICTION, visible=False), scene.rng)


METHODS: dict[str, Callable[[Scene], GraspGroup]] = {
    "labels as predictions": _oracle_labels,
    "oracle heatmap + FAS": _oracle_heatmap,
    "AVN-RGB + FAS": _net,
    "AVN-depth + FAS": _net,
    "AVN-normals + FAS": _net,
    "AVN-RGB+normals + FAS": _net,
    "antipodal sampler + FAS": lambda scene: antipodal_sampler(scene.observation, scene.rng).grasps,
    "surface normal + FAS": lambda scene: surface_normal(scene.observation, scene.rng).grasps,
    "planar rectangles": lambda scene: planar_grasps(scene.observation, scene.rng).grasps,
    "class prior + FAS": _class_prior,
    "untrained AVN + FAS": _untrained,
    "random orientation + FAS": lambda scene: random_orientation(scene.observation, scene.anchors, scene.rng).grasps,
}
AVN = {
    "rgb": "AVN-RGB + FAS",
    "depth": "AVN-depth + FAS",
    "normals": "AVN-normals + FAS",
    "rgb_normals": "AVN-RGB+normals + FAS",
}
ORACLES = ("labels as predictions", "oracle heatmap + FAS")
GEOMETRIC = ("antipodal sampler + FAS", "surface normal + FAS", "planar rectangles")
BLIND = ("class prior + FAS", "untrained AVN + FAS", "random orientation + FAS")


def run(case: Case, data: Generated, scene_id: int, frame_id: int) -> tuple[GraspGroup, Any]:
    """Return a case's ranked grasps on a frame, and the observed cloud (P, 3)."""
    scene = shown(case, data, scene_id, frame_id)
    return METHODS[case.method](scene), scene.observation.cloud
