"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class.

The paper's tables and figures could not be read, and its numbers need the real data set: exhibits carry names of ours
and run on generated scenes. Depth noise, picks and timing are in `robust_experiments.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.search.decode import Decoding
from paperlab.rgbd_grasp.search.fas import OFFICIAL_CODE, OFFICIAL_DEMO, Search
from paperlab.rgbd_grasp.search.pipeline import Settings
from paperlab.rgbd_grasp.studies import cases, learning, material, mechanism
from paperlab.rgbd_grasp.studies.material import TEST_SPLITS, net_spec
from paperlab.rgbd_grasp.studies.methods import AVN, BLIND, GEOMETRIC, ORACLES, Case
from paperlab.rgbd_grasp.studies.statistics import difference, verdict

CPU, ANALYTIC = "measured-cpu", "analytic"
RGB = AVN["rgb"]
PREFERENCES = {
    "farthest, widest (released code)": Search(),
    "farthest, smallest (third party's note)": Search(width_order="smallest"),
    "farthest, smallest + 1 cm": Search(width_order="smallest", width_margin_m=0.01),
    "middle, smallest + 1 cm": Search(distance_order="middle", width_order="smallest", width_margin_m=0.01),
    "nearest, widest": Search(distance_order="nearest"),
    "nearest, smallest": Search(distance_order="nearest", width_order="smallest"),
}


def table_objects(config: Config) -> pd.DataFrame:
    """The generated objects: family, name, sides of the bounding box, graspable directions."""
    return mechanism.object_table().assign(evidence=ANALYTIC)


def table_labels(config: Config) -> pd.DataFrame:
    """RG-010, RG-011: positives per frame and their share of the heatmap, by split; the paper's follow from totals."""
    material.generate(config)
    return mechanism.label_table(config)


def exhibit_orientations(config: Config) -> pd.DataFrame:
    """D1: angle between random orientations and their class, by views, angles and the symmetry of the jaws."""
    return mechanism.orientation_errors(seed=0).assign(evidence="simulated")


def table_force_closure(config: Config) -> pd.DataFrame:
    """Force closure on a sphere against the analytic answer, on signed distances and on the mesh."""
    return mechanism.sphere_closure().assign(evidence=ANALYTIC)


def table_ceilings(config: Config) -> pd.DataFrame:
    """AP of a perfect detector by number of objects: the metric keeps 10 grasps of each and divides by 50."""
    return mechanism.ceilings().assign(evidence=ANALYTIC)


def table_architecture(config: Config) -> pd.DataFrame:
    """RG-001 to RG-005, RG-064: input, grid, classes and parameters of three Angle-View Nets, part by part."""
    return mechanism.architecture().assign(evidence=ANALYTIC)


def exhibit_training(config: Config) -> pd.DataFrame:
    """Loss and precision on validation scenes along the training, by net."""
    return learning.histories(config, [*_nets(config, "rgb"), *_nets(config, "depth")]).assign(evidence=CPU)


def table_heatmaps(config: Config) -> pd.DataFrame:
    """Before any search: how many of a heatmap's best 50 entries are right, on the test scenes."""
    specs = [*_nets(config, "rgb"), *_nets(config, "depth")]
    return learning.heatmap_table(config, specs).assign(evidence=CPU)


def table_main(config: Config) -> pd.DataFrame:
    """RG-047, RG-048: AP of every method by split, with and without collision filter, intervals over scenes."""
    return cases.ap_table(_main(config)).assign(evidence=CPU)


def table_differences(config: Config) -> pd.DataFrame:
    """RG-101 to RG-105: AP of AVN-RGB less that of every other method, paired over scenes, all seeds and each."""
    found = _main(config)
    series: dict[str, list[pd.Series]] = {}
    for case, items in found.items():
        series.setdefault(case.method, []).append(cases.scene_ap(items))
    rows = []
    for name, other in series.items():
        if name == RGB:
            continue
        for split in ("all", *TEST_SPLITS):
            part = {key: [_of_split(s, split) for s in lot] for key, lot in ((RGB, series[RGB]), (name, other))}
            for seed in ("all", *config.seeds):
                ours = part[RGB] if seed == "all" else [part[RGB][config.seeds.index(seed)]]
                theirs = part[name] if len(part[name]) in (1, len(ours)) else part[name][:1]
                mean, low, high = difference(ours, theirs)
                rows.append((name, split, str(seed), len(ours[0]), mean, low, high, verdict(low, high)))
    columns = ["over", "split", "net_seed", "scenes", "difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns).assign(method=RGB, evidence=CPU)


def table_swaps(config: Config) -> pd.DataFrame:
    """RG-106, RG-107: AP with the color of another scene, and what noise for depth does to the heatmap."""
    return learning.swap_table(config, _ablation_places(config)).assign(evidence=CPU)


def exhibit_preferences(config: Config) -> pd.DataFrame:
    """RG-110: the search's tie-break, its grid and the released presets, with the same heatmaps."""
    wanted = {name: Settings(search=search) for name, search in PREFERENCES.items()}
    wanted |= {"code: width 10 cm, 3 distances": Settings(search=OFFICIAL_CODE)}
    wanted |= {"demo: width 10 cm, 3 distances, empty below 10 %": Settings(search=OFFICIAL_DEMO)}
    return _varied(config, {name: Case(RGB, _net(config), settings=s) for name, s in wanted.items()})


def exhibit_margins(config: Config) -> pd.DataFrame:
    """How much clearance beyond the smallest free opening is worth."""
    margins = {f"{m} cm": Search(width_order="smallest", width_margin_m=m / 100) for m in (0, 1, 2, 3, 9)}
    return _varied(config, {name: Case(RGB, _net(config), settings=Settings(search=s)) for name, s in margins.items()})


def exhibit_masks(config: Config) -> pd.DataFrame:
    """Where seeds may start, and where in its cell a seed lies, with the same heatmaps."""
    wanted = {f"mask {kind}": Case(RGB, _net(config), mask=kind) for kind in ("gt", "depth_plane", "none")}  # type: ignore[arg-type]
    corner = Settings(decoding=Decoding(mode="official"))
    wanted |= {"corner of the cell, mean depth (released code)": Case(RGB, _net(config), settings=corner)}
    return _varied(config, wanted)


def exhibit_training_choices(config: Config) -> pd.DataFrame:
    """D1 and R1: labels that ignore the jaws' symmetry, plain MSE, and the nets' inputs, each trained alike."""
    base = net_spec(config, iterations=config.ablation_iterations)
    wanted = {
        "as used": Case(RGB, base),
        "labels without symmetry (released code)": Case(RGB, replace(base, symmetry="official")),
        "plain MSE (released code)": Case(RGB, replace(base, loss="mse")),
        "input: depth": Case(AVN["depth"], replace(base, modality="depth")),
    }
    for name in config.extra_modalities:
        title = {"normals": "input: normals", "rgb_normals": "input: color and normals"}[name]
        wanted[title] = Case(AVN[name], replace(base, modality=name))  # type: ignore[arg-type]
    return _varied(config, wanted)


def exhibit_classes(config: Config) -> pd.DataFrame:
    """What more views and angles could bring at best: the oracle's AP by number of classes."""
    material.generate(config)
    return learning.oracle_classes(config, _ablation_places(config), mechanism.CLASSES).assign(evidence=CPU)


def _net(config: Config) -> material.NetSpec:
    return net_spec(config, seed=config.seeds[0])


def _nets(config: Config, modality: str) -> list[material.NetSpec]:
    seeds = config.seeds if modality == "rgb" else config.depth_seeds
    return [net_spec(config, modality, seed) for seed in seeds]


def _main_cases(config: Config) -> list[Case]:
    """Return the cases of the main table."""
    nets = [Case(AVN[modality], net) for modality in ("rgb", "depth") for net in _nets(config, modality)]
    others = [Case(method, _net(config)) for method in (*ORACLES, *GEOMETRIC, *BLIND)]
    return [*others[:2], *nets, *others[2:]]


def _main(config: Config) -> dict[Case, list[cases.Judged]]:
    wanted = [place for s in TEST_SPLITS for place in material.places(s, config.test_scenes, config.test_views)]
    return cases.judged(config, _main_cases(config), wanted)


def _ablation_places(config: Config) -> list[cases.Place]:
    return [p for s in TEST_SPLITS for p in material.places(s, config.ablation_scenes, config.ablation_views)]


def _varied(config: Config, wanted: dict[str, Case]) -> pd.DataFrame:
    """Return AP over the ablation's frames of all splits by setting; the first is what others are compared with."""
    found = cases.judged(config, list(wanted.values()), _ablation_places(config))
    rows = []
    base = [cases.scene_ap(found[next(iter(wanted.values()))])]
    for name, case in wanted.items():
        row = cases.pooled_row(found[case])
        mean, low, high = difference([cases.scene_ap(found[case])], base)
        rows.append({"setting": name, "mask": case.mask, **row, "change": mean, "change_low": low, "change_high": high})
    return pd.DataFrame(rows).assign(evidence=CPU)


def _of_split(series: pd.Series, split: str) -> pd.Series:
    return series if split == "all" else series[[cases.split_of(int(i)) == split for i in series.index]]
