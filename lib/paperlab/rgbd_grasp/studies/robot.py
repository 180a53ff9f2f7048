"""Picks in simulation, in place of the paper's robot: lone objects, piles, success by label score, controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.baselines.geometric import antipodal_sampler, random_orientation
from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.physics import (
    HARD,
    Clearing,
    Grip,
    Rate,
    Trial,
    attempts_on,
    candidates,
    clear_table,
    clearing_rates,
    oracle_policy,
    rates_table,
    single_objects,
    success_by_score,
)
from paperlab.rgbd_grasp.scenes import catalog, make_scene, object_ids
from paperlab.rgbd_grasp.scenes.drop import drop
from paperlab.rgbd_grasp.search.pipeline import Settings
from paperlab.rgbd_grasp.search.workspace import find_workspace
from paperlab.rgbd_grasp.studies.material import NetSpec, trained_net

POLICIES = ("AVN-RGB + FAS", "antipodal sampler + FAS", "random orientation + FAS", "labels (privileged)")
FAMILIES = ("seen", "similar", "novel")
_FIRST_PILE = 500  # scene ids that no split has


def policy(name: str, spec: NetSpec) -> Callable[[View], GraspGroup]:
    """Return what a robot does with an image: ranked grasps in the camera's frame, in what rises over the table."""
    if name == POLICIES[3]:
        return oracle_policy

    def act(view: View) -> GraspGroup:
        rng = np.random.default_rng(view.scene_id)
        if name == POLICIES[0]:
            return trained_net(spec).avn.detect(view).grasps
        grid = spec.config.grid
        workspace = find_workspace("depth_plane", grid, depth_m=view.depth_m, camera=view.camera)
        seen = Observation(view.depth_m, view.camera, workspace, Settings())
        if name == POLICIES[1]:
            return antipodal_sampler(seen, rng).grasps
        return random_orientation(seen, spec.config.anchors, rng).grasps

    if name not in POLICIES:
        raise ValueError(f"policy is {name!r}; use one of {', '.join(POLICIES)}")
    return act


@dataclass(frozen=True)
class _Job:
    policy: str
    spec: NetSpec
    family: str
    items: tuple[int, ...]  # object ids, or numbers of piles
    count: int  # poses of each object, or objects of a pile


def lone_objects(config: Config, spec: NetSpec) -> pd.DataFrame:
    """Return success rates of every policy's best grasp on lone objects, by family, with Wilson intervals."""
    jobs = [
        _Job(name, spec, family, tuple(object_ids(family)[: config.lone_objects]), config.lone_poses)  # type: ignore[arg-type]
        for family in FAMILIES
        for name in POLICIES
    ]
    found = in_processes(_lone, jobs, config.workers, reuse=True)
    return _table(jobs, [{"success rate": rate} for rate in found])


def _lone(job: _Job) -> Rate:
    rates = single_objects(policy(job.policy, job.spec), job.items, job.count)
    return Rate(sum(r.successes for r in rates.values()), sum(r.attempts for r in rates.values()))


def piles(config: Config, spec: NetSpec) -> pd.DataFrame:
    """Return VGN's two rates of clutter removal by policy and family, with Wilson intervals."""
    jobs = [
        _Job(name, spec, family, tuple(range(config.piles)), config.pile_objects)
        for family in FAMILIES
        for name in POLICIES
    ]
    found = in_processes(_clear, jobs, config.workers, reuse=True)
    return _table(jobs, [dict(clearing_rates(clearings)) for clearings in found])


def _clear(job: _Job) -> list[Clearing]:
    ids = object_ids(job.family)  # type: ignore[arg-type]
    act = policy(job.policy, job.spec)
    return [clear_table(make_scene(_FIRST_PILE + k, 0, ids, job.count), act, seed=k) for k in job.items]


def _table(jobs: Sequence[_Job], rates: Sequence[dict[str, Rate]]) -> pd.DataFrame:
    tables = [
        rates_table(found, "measure").assign(family=job.family, policy=job.policy)
        for job, found in zip(jobs, rates, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["family", "policy", "measure", "successes", "attempts", "rate", "low", "high"]]


def by_score(config: Config) -> pd.DataFrame:
    """Return success rates by label score (0: no force closure), under low friction, a robot's errors and a shake."""
    chosen = [catalog()[i] for family in FAMILIES for i in object_ids(family)[: config.score_objects]]  # type: ignore[arg-type]
    rates = success_by_score(chosen, config.score_grasps)
    table = rates_table({str(score): rate for score, rate in rates.items()}, "score")
    return table.assign(score=table.score.astype(float))


def controls(config: Config) -> pd.DataFrame:
    """Return rates that must be next to nothing: closing in empty air, and fingers without friction.

    Without friction jaws that cage an object can still lift it, so grasps of flat-sided boxes are tried.
    """
    box = catalog()[object_ids("seen")[0]]
    pose = drop([box], np.random.default_rng(0))[0]
    grasps = candidates(box, pose, 2000)
    best = grasps[grasps.scores > 0.85][: 5 * config.score_grasps]
    raised = best[:]
    raised.translations = best.translations + np.array([0.0, 0.0, 0.3])
    tried = {
        "the box's best labels": attempts_on(box, pose, best, Trial()),
        "the same, 30 cm up in empty air": attempts_on(box, pose, raised, Trial()),
        "the same, without friction": attempts_on(box, pose, best, Trial(Grip(friction=0.0))),
        "the same, low friction, errors, a shake": attempts_on(box, pose, best, HARD),
    }
    return rates_table({name: Rate(sum(found), len(found)) for name, found in tried.items()}, "control")
