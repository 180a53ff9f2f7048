"""How much work RGBD-Grasp's experiments do; the profiles set it in `lab/profiles.toml`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from paperlab.rgbd_grasp.geometry.checks import one_of

NETS = ("tiny", "small", "full")


@dataclass(frozen=True)
class Config:
    """Sizes of RGBD-Grasp's experiments; the defaults are the smallest that exercise every path."""

    workers: int = 1  # processes, one torch thread each
    scene_workers: int = 2  # processes that make scenes; they start fast, without torch
    device: str = "cpu"  # where nets learn
    net: str = "tiny"  # of NETS; "tiny" has 12 views by 4 angles, and learns next to nothing
    train_scenes: int = 10  # a tenth of them for validation
    test_scenes: int = 2  # of each split
    test_views: int = 1  # of each test scene, of 4
    iterations: int = 40
    seeds: tuple[int, ...] = (0,)  # of the nets for color; scenes and seeds are the units of intervals
    depth_seeds: tuple[int, ...] = (0,)
    ablation_iterations: int = 20  # for nets that are trained otherwise
    ablation_scenes: int = 2
    ablation_views: int = 1
    extra_modalities: tuple[str, ...] = ()  # beside rgb and depth
    noise_scenes: int = 2  # of split "seen"
    noise_views: int = 1
    noise_levels: int = 2  # of each family, spread from none to the strongest
    lone_objects: int = 2
    lone_poses: int = 1
    piles: int = 1
    pile_objects: int = 3
    score_objects: int = 2
    score_grasps: int = 2  # of each score and object
    timing_rounds: int = 2

    def __post_init__(self) -> None:
        one_of("net", self.net, NETS)
        one_of("device", self.device, ("cpu", "cuda"))
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Config: {item.name} is {value}, needs 1 or more")
        if not self.seeds or not self.depth_seeds:
            raise ValueError("Config: seeds and depth_seeds must not be empty")
        if self.train_scenes < 2 or self.noise_levels < 2:
            raise ValueError("Config: train_scenes and noise_levels need 2 or more")
        for name in self.extra_modalities:
            one_of("extra_modalities", name, ("normals", "rgb_normals"))
