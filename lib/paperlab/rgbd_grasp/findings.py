"""What tables say to each claim of the ledger, in its units; what that means, the ledger decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from paperlab.rgbd_grasp.network.config import FULL
from paperlab.rgbd_grasp.robust_experiments import FROM_DEPTH
from paperlab.rgbd_grasp.search.fas import Search
from paperlab.rgbd_grasp.studies.mechanism import PUBLISHED_FRAMES, PUBLISHED_POSITIVES
from paperlab.rgbd_grasp.studies.methods import AVN, BLIND, ORACLES

RGB, RANDOM = AVN["rgb"], BLIND[2]


class Found(NamedTuple):
    """One finding: the claim, its value in the ledger's unit, the artifact that shows it, and a note."""

    claim_id: str
    value: float | bool
    artifact: str
    note: str = ""


def architecture_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield sizes, classes and parameters of the full net, from `table_architecture`, and the search's grid."""
    row = table.iloc[0]
    sizes = [*row.image.split("x"), *row.grid.split("x"), row.views, row.angles, row.classes, row.total_M]
    ids = ("RG-001w", "RG-001h", "RG-002w", "RG-002h", "RG-003", "RG-004", "RG-005", "RG-064")
    yield from (Found(claim, float(value), "architecture") for claim, value in zip(ids, sizes, strict=True))
    search = Search()
    widths, distances = ([round(100 * x) for x in values] for values in (search.widths_m, search.distances_m))
    yield Found("RG-006", widths == list(range(1, 11)), "architecture", f"openings in cm: {widths}")
    yield Found("RG-007", distances == [-2, -1, 0, 1, 2], "architecture", f"distances in cm: {distances}")


def label_findings() -> Iterator[Found]:
    """Yield whether the paper's totals of positives and negatives agree with its grid, classes and frames."""
    entries = PUBLISHED_FRAMES * FULL.classes * FULL.grid.rows * FULL.grid.columns
    note = f"{entries / 1e9:.1f} G entries in all"
    positives = PUBLISHED_POSITIVES["RealSense"], PUBLISHED_POSITIVES["Kinect"]
    yield Found("RG-010", (entries - positives[0]) / 1e9, "labels", note)
    for claim, total in zip(("RG-011r", "RG-011k"), positives, strict=True):
        yield Found(claim, 100 * total / entries, "labels", note)


def orientation_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield how often the released label code finds the right view, from `exhibit_orientations`."""
    part = table[(table.views == FULL.views) & (table.angles == FULL.angles)].groupby("symmetry")
    right, error = part.right_view.mean(), part.error_deg.mean()
    note = (
        f"{100 * right['canonical']:.0f} % with both; mean angle {error['official']:.1f}° and {error['canonical']:.1f}°"
    )
    yield Found("RG-107", 100 * float(right["official"]), "orientations", note)


def ceiling_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield what a perfect detector reaches with few objects, from `table_ceilings`."""
    ap: Any = table.set_index("objects").ap
    yield Found("RG-108", float(ap[1]), "ceilings")
    yield Found("RG-109", float(ap[4]), "ceilings")


def main_findings(table: pd.DataFrame, differences: pd.DataFrame) -> Iterator[Found]:
    """Yield orders of methods, from `table_main` and `table_differences`."""
    rows = differences[differences.net_seed == "all"].set_index(["over", "split"])
    overall: Any = rows.xs("all", level="split")
    for claim, name in zip(("RG-101", "RG-102", "RG-103"), BLIND, strict=True):
        row = overall.loc[name]
        yield Found(
            claim, float(row.low), "differences_table", f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
        )
    oracle, blind = overall.loc[ORACLES[1]], overall.loc[RANDOM]
    note = f"AVN less oracle {oracle.difference:+.1f} [{oracle.low:+.1f}, {oracle.high:+.1f}]"
    yield Found("RG-104", bool(oracle.high < 0 < blind.low), "differences_table", note)
    others = rows.drop(index=list(ORACLES), level="over").drop(index="all", level="split")
    short = others[others.low <= 0]
    note = "; ".join(f"{row.over}, {row.split}: {row.difference:+.1f}" for row in short.reset_index().itertuples())
    yield Found("RG-047", short.empty, "differences_table", f"not above: {note}" if note else "all lower ends above 0")
    ap = table[(table.method == RGB) & ~table.collision_filter].set_index("split").ap
    note = ", ".join(f"{split} {value:.1f}" for split, value in ap.items())
    yield Found("RG-048", bool(ap.is_monotonic_decreasing), "main_table", f"AVN-RGB: {note}")


def swap_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield what the net for color looks at, from `table_swaps`."""
    rows: Any = table[table.method == RGB].set_index("swap")
    before, after = float(rows.ap["none"]), float(rows.ap["rgb"])
    yield Found("RG-105", after <= before / 2, "swaps", f"AP {before:.1f}, with another scene's color {after:.1f}")
    yield Found("RG-106", float(rows.heatmap_change["depth"]), "swaps")


def choice_findings(preferences: pd.DataFrame, training: pd.DataFrame) -> Iterator[Found]:
    """Yield what preference and loss are worth, from `exhibit_preferences` and `exhibit_training_choices`."""
    row = preferences.iloc[1]
    note = f"smallest less widest {row.change:+.1f} [{row.change_low:+.1f}, {row.change_high:+.1f}]"
    yield Found("RG-110", bool(row.change_high < 0), "preferences", note)
    ap: Any = training.set_index("setting").ap
    mse = float(ap["plain MSE (released code)"])
    note = f"AP {mse:.1f} with MSE, {ap['as used']:.1f} with cross-entropy, as many iterations"
    yield Found("RG-116", bool(mse < ap["as used"] / 2), "training_choices", note)


def noise_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield who loses least to Gaussian noise, from `exhibit_noise`."""
    part = table[table.family == "gaussian"]
    rows: Any = part[part.level == part.level.max()].set_index("method")
    loss = rows.loss
    note = ", ".join(f"{name} {loss[name]:.0f} %" for name in (RGB, *FROM_DEPTH))
    close = [name for name in FROM_DEPTH if rows.loss_low[name] <= rows.loss_high[RGB]]
    note += f"; intervals overlap with {', '.join(close)}" if close else ""
    yield Found("RG-060", bool((loss[list(FROM_DEPTH)] > loss[RGB]).all()), "noise", f"share of AP lost: {note}")


def robot_findings(lone: pd.DataFrame, piles: pd.DataFrame) -> Iterator[Found]:
    """Yield success rates with seen objects, from `table_lone_objects` and `table_piles`."""
    for claim, table, artifact in (("RG-061", lone, "lone_objects"), ("RG-062", piles, "piles")):
        chosen = (table.policy == RGB) & (table.family == "seen") & (table.measure == "success rate")
        row = table[chosen].iloc[0]
        note = f"{row.successes} of {row.attempts}, 95 % {row.low:.0f} to {row.high:.0f} %"
        yield Found(claim, float(row.rate), artifact, note)


def physics_findings(scores: pd.DataFrame, controls: pd.DataFrame) -> Iterator[Found]:
    """Yield whether success follows the score, and the controls, from `exhibit_score` and `table_controls`."""
    rate: Any = scores.set_index(scores.score.round(1)).rate
    found = [float(rate.get(score, float("nan"))) for score in (1.0, 0.5, 0.1)]
    note = "scores 1.0, 0.5, 0.1: " + ", ".join(f"{value:.0f} %" for value in found)
    yield Found("RG-111", found[0] > found[1] > found[2], "score", note)
    rows: Any = controls.set_index("control").rate
    yield Found("RG-112", float(rows[rows.index.str.contains("empty air")].iloc[0]), "controls")
    yield Found("RG-113", float(rows[rows.index.str.contains("without friction")].iloc[0]), "controls")


def timing_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield milliseconds of search and evaluation, from `table_timing`."""
    rows = table.set_index(table.stage.str.split(":").str[0])
    for claim, stage in (("RG-114", "search"), ("RG-115", "evaluation")):
        row: Any = rows.loc[stage]
        yield Found(claim, 1000 * float(row.cpu_s), "timing", f"{row['items']:.0f} items")
