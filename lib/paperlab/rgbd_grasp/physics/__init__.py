"""Picks in MuJoCo: a hand of the evaluator's boxes, single objects, clutter, success rates, filmstrips."""

from paperlab.rgbd_grasp.physics.filmstrip import draw_film, film_pick, first_that_lifts
from paperlab.rgbd_grasp.physics.hand import Grip, Hand, build_world_with_hand
from paperlab.rgbd_grasp.physics.pick import Motion, Outcome, perturbed, pick
from paperlab.rgbd_grasp.physics.rates import Rate, rate_of, rates_table
from paperlab.rgbd_grasp.physics.trials import (
    HARD,
    Clearing,
    Policy,
    Trial,
    attempts_on,
    candidates,
    clear_table,
    clearing_rates,
    oracle_policy,
    robot_view,
    single_objects,
    success_by_score,
)

__all__ = [
    "HARD",
    "Clearing",
    "Grip",
    "Hand",
    "Motion",
    "Outcome",
    "Policy",
    "Rate",
    "Trial",
    "attempts_on",
    "build_world_with_hand",
    "candidates",
    "clear_table",
    "clearing_rates",
    "draw_film",
    "film_pick",
    "first_that_lifts",
    "oracle_policy",
    "perturbed",
    "pick",
    "rate_of",
    "rates_table",
    "robot_view",
    "single_objects",
    "success_by_score",
]
