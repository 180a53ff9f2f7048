"""Exhibits that are tidy and drawn, baselines, differences, profiles of valid settings, the ledger, the findings."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paperlab.lab.claims import all_claims
from paperlab.lab.evidence import Evidence
from paperlab.lab.profiles import get_profile, profile_names
from paperlab.rgbd_grasp import experiments, findings, plots, robust_experiments, robust_plots, sketches
from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.geometry.anchors import avn_anchors
from paperlab.rgbd_grasp.network.config import TINY
from paperlab.rgbd_grasp.studies import mechanism, methods, statistics
from paperlab.rgbd_grasp.studies.material import NetSpec, net_spec
from paperlab.rgbd_grasp.studies.methods import AVN, BLIND, METHODS, ORACLES, Case, Scene
from tests.rgbd_grasp.small_scenes import boxes_view

SMALLEST = Config(train_scenes=2, iterations=2, ablation_scenes=1, noise_scenes=1, score_grasps=1)
MODULES = {experiments: plots, robust_experiments: robust_plots}
EXHIBITS = {
    name: (function, getattr(drawn, name, None))
    for module, drawn in MODULES.items()
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}
FAST = {
    "exhibit_orientations", "table_architecture", "table_ceilings", "table_force_closure", "table_objects",
}  # fmt: skip
SPEC = NetSpec("tiny", 2, 2)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in EXHIBITS]
)
def test_exhibit_is_tidy_and_drawn(name: str) -> None:
    function, draw = EXHIBITS[name]
    table = function(SMALLEST)
    assert len(table) > 0
    assert set(table.evidence) <= set(map(str, Evidence))
    assert table.columns.is_unique
    if draw is not None:
        figure = draw(table)
        assert figure.axes
        plt.close(figure)


def test_every_plot_has_its_exhibit() -> None:
    for module, drawn in MODULES.items():
        for name, function in inspect.getmembers(drawn, inspect.isfunction):
            if function.__module__ == drawn.__name__ and not name.startswith("_"):
                assert hasattr(module, name), name


@pytest.mark.parametrize("name", profile_names())
def test_profiles_hold_valid_settings(name: str) -> None:
    config = get_profile(name).config("rgbd_grasp", Config)
    if name != "smoke":
        assert len(config.seeds) >= 3
        assert config.net == "small"
        assert config.test_scenes >= 10


def test_bad_settings_are_told() -> None:
    for settings, message in (
        ({"net": "large"}, "net: got 'large'"),
        ({"seeds": ()}, "seeds and depth_seeds"),
        ({"piles": 0}, "piles is 0"),
        ({"train_scenes": 1}, "train_scenes and noise_levels"),
        ({"extra_modalities": ("sound",)}, "extra_modalities: got 'sound'"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**settings)
    with pytest.raises(ValueError, match="method is 'magic'"):
        Case("magic", SPEC)
    with pytest.raises(ValueError, match="swap is 'both'"):
        Case(AVN["rgb"], SPEC, swap="both")


def test_nets_of_a_profile_differ_in_what_is_asked() -> None:
    base = net_spec(SMALLEST)
    assert net_spec(SMALLEST, "depth", 3) == NetSpec("tiny", 2, 2, modality="depth", seed=3)
    assert base.config == TINY
    assert base != net_spec(SMALLEST, loss="mse")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in (*AVN.values(), BLIND[0])])
def test_methods_find_grasps_in_the_camera_frame(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On three boxes every method that needs no training finds something within the scene."""
    view, labels = boxes_view(0)

    class Data:
        def antipodal(self, view: object, max_friction: float, visible: bool = True) -> object:
            return labels

    case = Case(method, SPEC, mask="gt")
    grasps = METHODS[method](Scene(case, Data(), view, np.random.default_rng(0)))  # type: ignore[arg-type]
    assert len(grasps) > 0 or method == "untrained AVN + FAS"
    assert (grasps.translations[:, 2] > 0.3).all()
    assert (np.diff(grasps.scores) <= 0).all()


def test_class_prior_draws_orientations_as_training_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell draws one class, as often as the prior says; frequent ones rank first, chance is the seed's."""
    prior = np.linspace(1, 4, TINY.classes) / 1e4
    monkeypatch.setattr(methods, "_prior", lambda net, train_scenes: prior)
    view, _ = boxes_view(0)

    def heatmap(seed: int) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Scene, "searched", lambda self, entries: entries)
            scene = Scene(Case(BLIND[0], SPEC), None, view, np.random.default_rng(seed))  # type: ignore[arg-type]
            return np.asarray(METHODS[BLIND[0]](scene))

    maps = [heatmap(seed) for seed in range(20)]
    drawn = np.isfinite(maps)
    assert (drawn.sum(axis=1) == 1).all()
    share, cells = drawn.mean(axis=(0, 2, 3)), drawn[:, 0].size
    wanted = prior / prior.sum()
    assert (np.abs(share - wanted) < 5 * np.sqrt(wanted / cells)).all()
    scores = np.where(drawn, maps, 0) / prior[:, None, None]
    assert scores[drawn] == pytest.approx(1, abs=2e-3)
    assert (maps[0] == heatmap(0)).all()
    assert (maps[0] != maps[1]).any()


def test_class_prior_offers_many_orientations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a few classes are the most frequent in every cell, which would leave hardly a grasp."""
    monkeypatch.setattr(methods, "_prior", lambda net, train_scenes: np.linspace(1, 4, TINY.classes) / 1e4)
    view, _ = boxes_view(0)
    scene = Scene(Case(BLIND[0], SPEC, mask="gt"), None, view, np.random.default_rng(0))  # type: ignore[arg-type]
    seeds = METHODS[BLIND[0]](scene)
    classes = scene.anchors.nearest(seeds.rotation_matrices)
    assert len(np.unique(classes)) > scene.case.settings.decoding.top_in_cell
    assert (np.diff(seeds.scores) <= 0).all()


def test_an_oracle_may_have_classes_of_its_own() -> None:
    case = Case(ORACLES[1], SPEC, classes=(20, 3))
    view, _ = boxes_view(0)
    assert len(Scene(case, None, view, np.random.default_rng(0)).anchors) == 60  # type: ignore[arg-type]
    assert len(avn_anchors(TINY.views, TINY.angles)) == 48


def test_verdicts_of_differences() -> None:
    assert statistics.verdict(0.1, 0.2) == "higher"
    assert statistics.verdict(-0.1, 0.2) == "not resolved"


def test_differences_are_paired() -> None:
    hard = pd.Series(np.linspace(0, 80, 12))
    mean, low, high = statistics.difference([hard + 2], [hard])
    assert (mean, low, high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match="3 and 2 seeds"):
        statistics.difference([hard] * 3, [hard] * 2)


def test_orientations_agree_with_the_measured_quantization() -> None:
    table = mechanism.orientation_errors(seed=1)
    part = table[(table.views == 60) & (table.angles == 6)].groupby("symmetry")
    assert part.error_deg.mean()["canonical"] == pytest.approx(10.8, abs=0.5)
    assert part.error_deg.mean()["official"] > 2 * part.error_deg.mean()["canonical"]
    assert part.right_view.mean()["official"] == pytest.approx(0.49, abs=0.03)


def test_closure_on_a_ball_follows_the_tangent() -> None:
    table = mechanism.sphere_closure()
    assert (table.analytic == table.mesh).all()
    assert ((table.signed_distances - table.analytic).abs()[table.lean_deg < 50] < 0.21).all()


def test_sketches_are_drawn() -> None:
    view, labels = boxes_view(0)
    for figure in (
        sketches.gripper(),
        sketches.gallery([view, view], ["one", "two"]),
        sketches.views_of(avn_anchors(), labels.rotation_matrices[:, :, 0]),
    ):
        assert figure.axes
        plt.close(figure)


def test_ledger_has_every_row_and_decides_nothing_it_cannot() -> None:
    ledger = all_claims()["rgbd_grasp"]
    numbers = {int(claim_id[3:6]) for claim_id in ledger}
    wanted = {*range(1, 12), *range(20, 27), *range(30, 52), 60, 61, 62, 63, 64, 65, 70, 71}
    assert wanted <= numbers
    for claim in ledger.values():
        number = int(claim.claim_id[3:6])
        if 20 <= number <= 46 or number in (49, 50, 51, 65):
            assert claim.comparison == "reference", claim.claim_id
        if claim.source in ("recalled", "unknown"):
            assert not claim.is_decidable, claim.claim_id


def test_analytic_findings_reproduce_the_paper() -> None:
    ledger = all_claims()["rgbd_grasp"]
    found = [
        *findings.architecture_findings(experiments.table_architecture(SMALLEST)),
        *findings.label_findings(),
        *findings.ceiling_findings(experiments.table_ceilings(SMALLEST)),
    ]
    for item in found:
        claim = ledger[item.claim_id]
        if claim.is_qualitative:
            assert item.value, item
        else:
            assert item.value == pytest.approx(claim.value_low, rel=claim.tolerance + 1e-9), item


def test_findings_of_orders_by_hand() -> None:
    names = [*ORACLES, AVN["depth"], *BLIND]
    rows = [
        (name, split, "all", -5.0 if name in ORACLES else 5.0, 1.0 if name not in ORACLES else -9.0)
        for name in names
        for split in ("all", "seen", "similar", "novel")
    ]
    table = pd.DataFrame(rows, columns=["over", "split", "net_seed", "difference", "low"])
    table["high"] = table.difference + 2
    main = pd.DataFrame({"method": AVN["rgb"], "split": ["seen", "similar", "novel"], "ap": [50.0, 40, 30]})
    main["collision_filter"] = False
    found = {item.claim_id: item.value for item in findings.main_findings(main, table)}
    assert found["RG-101"] == 1.0
    assert found["RG-104"] is True
    assert found["RG-047"] is True
    table.loc[(table.over == AVN["depth"]) & (table.split == "novel"), "low"] = -0.1
    found = {item.claim_id: item.value for item in findings.main_findings(main, table)}
    assert found["RG-047"] is False
