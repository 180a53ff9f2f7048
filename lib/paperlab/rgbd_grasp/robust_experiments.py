"""Exhibits of the second half: depth noise, picks in simulation, seconds; shaped as those of `experiments.py`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.evaluation.bootstrap import interval
from paperlab.rgbd_grasp.noise import NOISE_FAMILIES, Noise
from paperlab.rgbd_grasp.search.fas import Search
from paperlab.rgbd_grasp.search.pipeline import Settings
from paperlab.rgbd_grasp.studies import cases, material, robot, timing
from paperlab.rgbd_grasp.studies.material import net_spec
from paperlab.rgbd_grasp.studies.methods import AVN, Case

CPU, SIMULATED = "measured-cpu", "simulated"
NOISY = ("oracle heatmap + FAS", AVN["rgb"], AVN["depth"], "antipodal sampler + FAS", "surface normal + FAS")
FROM_DEPTH = NOISY[2:]  # methods whose orientation comes from depth


def exhibit_noise(config: Config) -> pd.DataFrame:
    """RG-060: AP by family and level of depth noise, absolute and relative to none; true object masks for all.

    All methods start in the same cells, so that what differs is where orientation comes from. The row "AVN-RGB, own
    workspace" finds the table in the noisy depth itself.
    """
    places = material.places("seen", config.noise_scenes, config.noise_views)
    arms = {name: (name, "gt") for name in NOISY} | {"AVN-RGB, own workspace": (AVN["rgb"], "depth_plane")}
    wanted = {
        (arm, family, level): _noisy_case(config, method, mask, family, level)
        for family in NOISE_FAMILIES
        for level in _levels(config, family)
        for arm, (method, mask) in arms.items()
    }
    found = cases.judged(config, wanted.values(), places)
    rows = []
    for (arm, family, level), case in wanted.items():
        first = found[wanted[arm, family, 0.0]]
        loss = _relative_loss(cases.scene_ap(first), cases.scene_ap(found[case]))
        row = cases.pooled_row(found[case])
        rows.append({"method": arm, "mask": case.mask, "family": family, "level": level, **row, **loss})
    return pd.DataFrame(rows).assign(evidence=CPU)


def table_noise_margin(config: Config) -> pd.DataFrame:
    """Does Gaussian noise help? AP with and without an explicit clearance, smallest opening preferred."""
    places = material.places("seen", config.noise_scenes, config.noise_views)
    net = net_spec(config, seed=config.seeds[0])
    wanted = {}
    for margin in (0.0, 0.01):
        settings = Settings(search=Search(width_order="smallest", width_margin_m=margin))
        for level in _levels(config, "gaussian"):
            noise = Noise("gaussian", level) if level else None
            wanted[100 * margin, level] = Case(AVN["rgb"], net, "gt", settings, noise)
    found = cases.judged(config, wanted.values(), places)
    rows = [{"margin_cm": m, "level": level, **cases.pooled_row(found[case])} for (m, level), case in wanted.items()]
    return pd.DataFrame(rows).assign(evidence=CPU)


def table_lone_objects(config: Config) -> pd.DataFrame:
    """RG-061: success of the best grasp on a lone object by policy and family."""
    return robot.lone_objects(config, _trained(config)).assign(evidence=SIMULATED)


def table_piles(config: Config) -> pd.DataFrame:
    """RG-062: clutter removal by policy and family: successes per attempt, objects removed per object placed."""
    return robot.piles(config, _trained(config)).assign(evidence=SIMULATED)


def exhibit_score(config: Config) -> pd.DataFrame:
    """RG-111: success by label score, over objects of all families."""
    return robot.by_score(config).assign(evidence=SIMULATED)


def table_controls(config: Config) -> pd.DataFrame:
    """RG-112, RG-113: closing in empty air, and fingers without friction."""
    return robot.controls(config).assign(evidence=SIMULATED)


def table_timing(config: Config) -> pd.DataFrame:
    """RG-114, RG-115: CPU seconds per frame, stage by stage, on this machine."""
    return timing.stage_times(config, _trained(config)).assign(evidence=CPU)


def _trained(config: Config) -> material.NetSpec:
    spec = net_spec(config, seed=config.seeds[0])
    material.train(config, [spec])
    return spec


def _levels(config: Config, family: str) -> list[float]:
    """Return some of a family's levels, from none to the strongest."""
    levels = NOISE_FAMILIES[family]  # type: ignore[index]
    count = min(config.noise_levels, len(levels))
    return [levels[i] for i in np.linspace(0, len(levels) - 1, count).round().astype(int)]


def _noisy_case(config: Config, method: str, mask: str, family: str, level: float) -> Case:
    depth = method == AVN["depth"]
    net = net_spec(config, "depth" if depth else "rgb", (config.depth_seeds if depth else config.seeds)[0])
    noise = Noise(family, level) if level else None  # type: ignore[arg-type]
    return Case(method, net, mask, noise=noise)  # type: ignore[arg-type]


def _relative_loss(clean: pd.Series, noisy: pd.Series) -> dict[str, float]:
    """Return what share of its AP without noise a method loses, in percent, with an interval over scenes."""
    mean = float(clean.mean())
    if mean <= 0:
        return dict.fromkeys(("loss", "loss_low", "loss_high"), float("nan"))
    lost = interval(100 * (clean - noisy).to_numpy(dtype=float) / mean)
    return dict(zip(("loss", "loss_low", "loss_high"), lost, strict=True))
