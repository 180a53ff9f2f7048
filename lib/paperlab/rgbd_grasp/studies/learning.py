"""Nets before any search: how they learned, how good their heatmaps are, what they look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.learning.metrics import NEAR_RAD, judged
from paperlab.rgbd_grasp.search.workspace import find_workspace
from paperlab.rgbd_grasp.studies import cases, material, methods
from paperlab.rgbd_grasp.studies.material import LABEL_FRICTION, NetSpec, net_spec, samples, trained_net
from paperlab.rgbd_grasp.studies.methods import AVN, Case, shown, untrained


def histories(config: Config, specs: Sequence[NetSpec]) -> pd.DataFrame:
    """Return the validations of every net's training: modality, net_seed, iteration, losses, shares that are right."""
    material.train(config, specs)
    tables = []
    for spec in specs:
        head = pd.DataFrame({"modality": [spec.modality], "net_seed": [spec.seed]})
        tables.append(head.merge(trained_net(spec).history, how="cross"))
    return pd.concat(tables, ignore_index=True)


def heatmap_table(config: Config, specs: Sequence[NetSpec]) -> pd.DataFrame:
    """Return what share of the best 50 entries is right on the test scenes, by split and predictor, over all seeds.

    Beside the nets: one that is not trained, and the class prior on the true object cells.
    """
    material.train(config, specs)
    data, rows = material.data(), []
    net = specs[0].config
    near = net.anchors.neighbors(NEAR_RAD)
    prior = samples(config.net, config.train_scenes)[0].class_prior()
    for split in material.TEST_SPLITS:
        for place in material.places(split, config.test_scenes, config.test_views):
            view = data.view(*place)
            labels = heatmap_labels(data.antipodal(view, LABEL_FRICTION), view.camera, net.anchors, net.grid)
            objects = find_workspace("gt", net.grid, segmentation=view.segmentation).cells
            names = {spec: AVN[spec.modality].removesuffix(" + FAS") for spec in specs}  # no search yet
            maps: dict[str, list[Floats]] = {name: [] for name in names.values()}
            for spec in specs:
                maps[names[spec]].append(trained_net(spec).avn.heatmap(view.rgb, view.depth_m, view.camera))
            maps["class prior on true object cells"] = [prior[:, None, None] * objects]
            maps["untrained AVN"] = [untrained(specs[0]).heatmap(view.rgb, view.depth_m, view.camera)]
            rows += [
                {"split": split, "predictor": name, **judged(heatmap, labels, objects, near)}
                for name, lot in maps.items()
                for heatmap in lot
            ]
    table = pd.DataFrame(rows)
    return table.groupby(["split", "predictor"], sort=False).mean().mul(100).reset_index()


def swap_table(config: Config, places: Sequence[cases.Place]) -> pd.DataFrame:
    """Return AP of both nets as they are, with the color of another scene, and how far the heatmap moves by a swap.

    `heatmap_change` is the largest difference of an entry from the heatmap of the true view. AP with noise for depth
    is that of a search in noise, so it says nothing about a net and stays empty.
    """
    rows = []
    for modality in ("rgb", "depth"):
        spec = net_spec(config, modality, config.seeds[0] if modality == "rgb" else config.depth_seeds[0])
        plain, swapped = Case(AVN[modality], spec), Case(AVN[modality], spec, swap="rgb")
        found = cases.judged(config, [plain, swapped], places)
        for swap in ("", "rgb", "depth"):
            case = Case(AVN[modality], spec, swap=swap)
            items = found.get(case)
            row = {"method": AVN[modality], "swap": swap or "none", "heatmap_change": _change(case, plain, places)}
            rows.append(row | (cases.pooled_row(items) if items else {"ap": np.nan, "frames": len(places)}))
    return pd.DataFrame(rows)[["method", "swap", "heatmap_change", "frames", "ap", "ap_low", "ap_high"]]


def _change(case: Case, plain: Case, places: Sequence[cases.Place]) -> float:
    avn, data = trained_net(case.net).avn, material.data()
    changes = []
    for place in places:
        maps = [avn.heatmap(v.rgb, v.depth_m, v.camera) for v in (shown(c, data, *place).view for c in (plain, case))]
        changes.append(float(np.abs(maps[0] - maps[1]).max()))
    return max(changes)


def oracle_classes(config: Config, places: Sequence[cases.Place], classes: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Return the AP of a perfect heatmap by number of views and angles: what finer classes could bring at best."""
    wanted = {
        (views, angles): Case(methods.ORACLES[1], net_spec(config), classes=(views, angles))
        for views, angles in classes
    }
    found = cases.judged(config, list(wanted.values()), places)
    rows = [
        {"views": views, "angles": angles, "classes": views * angles, **cases.pooled_row(found[case])}
        for (views, angles), case in wanted.items()
    ]
    return pd.DataFrame(rows)
