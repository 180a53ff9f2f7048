"""Generated scenes, samples and trained nets, kept by content: the same key gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.alone import alone
from paperlab.lab.cache import content_key
from paperlab.lab.paths import cache_dir
from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp import geometry, labels, scenes
from paperlab.rgbd_grasp.dataset.layout import SPLITS
from paperlab.rgbd_grasp.geometry.anchors import Symmetry
from paperlab.rgbd_grasp.network.config import FULL, SMALL, TINY, AvnConfig, Modality
from paperlab.rgbd_grasp.scenes import Generated, Sizes, make_datasets

if TYPE_CHECKING:
    from paperlab.rgbd_grasp.config import Config
    from paperlab.rgbd_grasp.learning.samples import Samples
    from paperlab.rgbd_grasp.learning.trained import Trained

TEST_SPLITS = ("seen", "similar", "novel")
LABEL_FRICTION = 0.2  # of the grasps that a heatmap is labeled with
SIZES = Sizes(views=4)
SEED = 0  # of the scenes: the same ones in every profile, more or fewer of them
# What turns views into samples; named, because importing it loads torch.
_SAMPLES_CODE = ("paperlab.rgbd_grasp.learning.samples", "paperlab.rgbd_grasp.network.inputs")
_READY: set[NetSpec] = set()  # nets that the cache is known to hold
_NETS = {"tiny": TINY, "small": SMALL, "full": FULL}


@dataclass(frozen=True)
class NetSpec:
    """A net and all that it was trained with."""

    net: str
    train_scenes: int
    iterations: int
    modality: Modality = "rgb"
    seed: int = 0
    symmetry: Symmetry = "canonical"
    loss: str = "bce"
    device: str = "cpu"

    @property
    def config(self) -> AvnConfig:
        """Its size and modality."""
        return replace(_NETS[self.net], modality=self.modality)


def net_spec(config: Config, modality: str = "rgb", seed: int = 0, **changes: Any) -> NetSpec:
    """Return the net that a profile trains for a modality and seed."""
    fields: dict[str, Any] = {"modality": modality, "seed": seed, "iterations": config.iterations, **changes}
    return NetSpec(config.net, config.train_scenes, device=config.device, **fields)


@lru_cache(maxsize=1)
def scenes_folder() -> Path:
    """Return where the scenes lie; its name holds the hash of sizes, seed and the code that makes scenes."""
    code = (geometry.__name__, labels.__name__, scenes.__name__)
    key = content_key({"seed": SEED, **asdict(SIZES)}, code=code)
    return cache_dir() / "rgbd_grasp" / f"scenes-{key[:16]}"


@lru_cache(maxsize=4)
def generate(config: Config) -> Generated:
    """Return the scenes of a profile, made where they are missing."""
    counts = {"train": config.train_scenes} | dict.fromkeys(TEST_SPLITS, config.test_scenes)
    with alone(scenes_folder()):  # notebooks may run side by side
        make_datasets(scenes_folder(), counts, SEED, SIZES, workers=config.scene_workers)
    return data()


@lru_cache(maxsize=1)
def data() -> Generated:
    """Return this process's reader of the scenes, so that models are read once."""
    return Generated(scenes_folder())


def places(split: str, count: int, views: int) -> list[tuple[int, int]]:
    """Return scene and frame of the first `views` views of the first `count` scenes of a split."""
    return [(scene, frame) for scene in SPLITS[split][:count] for frame in range(views)]


@lru_cache(maxsize=4)
def samples(net: str, train_scenes: int, symmetry: Symmetry = "canonical") -> tuple[Samples, Samples]:
    """Return training and validation samples: whole scenes of the training split, none of a test split."""
    from paperlab.rgbd_grasp.learning.samples import Samples, collect, labeled_views

    found = data()
    path = scenes_folder() / f"samples-{net}-{train_scenes}-{symmetry}-{content_key({}, code=_SAMPLES_CODE)[:12]}.npz"
    ids = list(SPLITS["train"][:train_scenes])
    if path.exists():
        lot = Samples.load(path)
    else:
        views = labeled_views(found, ids, lambda view: found.antipodal(view, LABEL_FRICTION))
        lot = collect(views, _NETS[net], normals=True, symmetry=symmetry)
        lot.save(path)
    return lot.split(ids[-max(1, train_scenes // 10) :])


def train(config: Config, specs: Iterable[NetSpec]) -> None:
    """Train the nets that the cache does not hold, over the profile's workers."""
    generate(config)
    wanted = [spec for spec in dict.fromkeys(specs) if spec not in _READY]
    if not wanted:
        return
    with alone(cache_dir() / "rgbd_grasp"):
        for symmetry in dict.fromkeys(spec.symmetry for spec in wanted):
            samples(config.net, config.train_scenes, symmetry)  # once, not by every worker
        workers = config.workers if config.device == "cpu" else 1
        in_processes(_train, wanted, workers, reuse=True)
    _READY.update(wanted)


def _train(spec: NetSpec) -> None:
    trained_net(spec)


@lru_cache(maxsize=16)
def trained_net(spec: NetSpec) -> Trained:
    """Return a trained net, from the cache where it is there."""
    from paperlab.rgbd_grasp.learning.recipe import Recipe
    from paperlab.rgbd_grasp.learning.trained import trained

    every = max(1, spec.iterations // 5)  # a validation takes as long as eight steps
    recipe = Recipe(iterations=spec.iterations, loss=spec.loss, seed=spec.seed, validate_every=every)  # type: ignore[arg-type]
    lots = samples(spec.net, spec.train_scenes, spec.symmetry)
    return trained(spec.config, *lots, recipe, device=spec.device, progress=False)
