"""Exhibits that take the method apart (slots S-05 and S-08, bits of S-01); shaped as those of `experiments.py`.

All arms of a comparison run on the same nets with the same images and `ablation_iterations`. Trained nets are the unit
of every interval.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.config import Config
from paperlab.aquant.studies import cases
from paperlab.aquant.studies.cases import Case
from paperlab.aquant.studies.statistics import paired

CPU = "measured-cpu"
DEGREES = {-1: "no border", 0: "constant", 1: "linear", 2: "quadratic"}
DEFAULTS = {"granularity": "channel", "8-bit rule": "qdrop"}  # of the varied settings that are names
SQUARE = (("QDrop", "no drop"), ("AQuant", "no drop"), ("AQuant, drop", "AQuant"), ("AQuant, free", "AQuant"))
LADDER = (("constant", "no border"), ("linear", "constant"), ("quadratic", "linear"), ("quadratic", "no border"))


def exhibit_drop_and_border(config: Config) -> pd.DataFrame:
    """S-05: the 2x2 of QDrop's drop and the border, and free thresholds."""
    found = _accuracy(
        config, [_case(config, arm, seed) for arm in config.ablation_arms for seed in config.ablation_nets]
    )
    return found.assign(drop=found.arm.isin(["QDrop", "AQuant, drop", "AQuant, free, drop"]))


def exhibit_degrees(config: Config) -> pd.DataFrame:
    """S-05, RK-4: no border, constant, linear, quadratic, without drop; degree -1 is no border."""
    varied = {
        degree: [
            _case(config, "no drop", seed) if degree < 0 else _case(config, "AQuant", seed, border={"degree": degree})
            for seed in config.ablation_nets
        ]
        for degree in (-1, *config.degrees, 2)
    }
    return _varied(config, varied, "degree")


def table_terms(config: Config) -> pd.DataFrame:
    """S-05, AQ-08: the border in closed form from weight error alone, with propagated and with global error."""
    varied = {"none": [config.case("RTN", seed) for seed in config.nets]}
    for terms in ("weight", "propagated", "all"):
        varied[terms] = [config.case("closed form", seed, changes=(("terms", terms),)) for seed in config.nets]
    return _varied(config, varied, "terms")


def exhibit_bits(config: Config) -> pd.DataFrame:
    """S-01, RK-2, RK-5: top-1 by bits."""
    wanted = [
        _case(config, arm, seed, w_bits=w, a_bits=a)
        for w, a in ((2, 2), *config.bit_pairs)
        for arm in ("RTN", "QDrop", "AQuant")
        for seed in config.ablation_nets
    ]
    return _accuracy(config, wanted)


def exhibit_sensitivity(config: Config) -> pd.DataFrame:
    """S-08: top-1 against calibration images, iterations, granularity and the 8-bit rule."""
    settings: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
        "calibration images": [
            (str(n), "AQuant", {"images": n}) for n in (*config.calibration_sizes, config.calibration_images)
        ],
        "iterations": [
            (str(n), arm, {"iterations": n})
            for n in (*config.iteration_counts, config.ablation_iterations)
            for arm in ("QDrop", "AQuant")
        ],
        "granularity": [
            (name, "AQuant", {"border": {"granularity": name}})
            for name in (*config.granularities, DEFAULTS["granularity"])
        ],
        "8-bit rule": [
            (rule, "AQuant", {"stem_head": rule}) for rule in (*config.stem_rules, DEFAULTS["8-bit rule"])
        ],
    }  # fmt: skip
    varied = {
        (name, value, arm): [_case(config, arm, seed, **changes) for seed in config.ablation_nets]
        for name, items in settings.items()
        for value, arm, changes in items
    }
    return _varied(config, varied, "varied", "value")


def table_ablation_differences(config: Config) -> pd.DataFrame:
    """S-05, S-08, RK-2, RK-4, RK-5: paired differences over nets with 95 % intervals, for every ablation."""
    degrees = exhibit_degrees(config)
    bits = exhibit_bits(config)
    named = bits.assign(study="W" + bits.w_bits.astype(str) + "A" + bits.a_bits.astype(str))
    tables = [
        paired(exhibit_drop_and_border(config).assign(study="drop and border"), SQUARE, by=["study"]),
        paired(degrees.assign(study="degree", arm=degrees.degree.map(DEGREES)), LADDER, by=["study"]),
        paired(named, (("AQuant", "QDrop"),), by=["study"]),
    ]
    for name, part in exhibit_sensitivity(config).groupby("varied", sort=False):
        of_aquant = part[part.arm == "AQuant"].assign(study=name, arm=part.value)
        *others, default = dict.fromkeys(of_aquant.arm)
        tables.append(paired(of_aquant, [(other, default) for other in others], by=["study"]))
    return pd.concat(tables, ignore_index=True).assign(evidence=CPU)


def _case(config: Config, arm: str, seed: int, **changes: Any) -> Case:
    """Return an ablation's case; a border or an 8-bit rule that is the default is the arm itself, which runs once."""
    recipe: list[tuple[str, Any]] = []
    spec = BorderSpec(**changes.pop("border", {}))
    if spec != BorderSpec():
        recipe.append(("border", spec))
    rule = changes.pop("stem_head", DEFAULTS["8-bit rule"])
    if rule != DEFAULTS["8-bit rule"]:
        recipe.append(("stem_head", rule))
    return config.case(arm, seed, **{"iterations": config.ablation_iterations, "changes": tuple(recipe), **changes})


def _varied(config: Config, varied: dict[Any, list[Case]], *columns: str) -> pd.DataFrame:
    """Return a row per case with its key in `columns`; all cases run side by side."""
    cases.outcomes([case for items in varied.values() for case in items], config.workers)
    tables = []
    for key, items in varied.items():
        keys = key if isinstance(key, tuple) else (key,)
        tables.append(_accuracy(config, items).assign(**dict(zip(columns, keys, strict=False))))
    return pd.concat(tables, ignore_index=True)


def _accuracy(config: Config, wanted: list[Case]) -> pd.DataFrame:
    return cases.table(wanted, config.workers).assign(evidence=CPU)
