"""Every exhibit returns a tidy table with evidence, and every plot draws one; the costly ones are marked slow."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from paperlab.lab.evidence import Evidence
from paperlab.lab.profiles import get_profile, profile_names
from paperlab.tempo import experiments, plots
from paperlab.tempo.config import Config
from paperlab.tempo.training import pretraining

TINY = Config(
    grid_points=4001, layernorm_rows=64, random_shapes=1, ablation_seq_lens=(128, 512), capacity_seq_lens=(512,),
    capacity_gib=(16,), loss_steps=4, fine_tuning_steps=1,
)  # fmt: skip
COSTLY = {
    "exhibit_peers",
    "exhibit_max_batch",
    "table_readme",
    "exhibit_auto_tempo",
    "table_step_peak",
    "exhibit_bert_large",
}
EXHIBITS = {
    name: function
    for name, function in inspect.getmembers(experiments, inspect.isfunction)
    if function.__module__ == experiments.__name__
}


def tables_of(name: str) -> pd.DataFrame:
    if name == "table_loss":
        return experiments.table_loss(TINY, experiments.exhibit_loss(TINY))
    return EXHIBITS[name](TINY)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in COSTLY else []) for name in EXHIBITS]
)
def test_exhibit_is_tidy_and_drawn(name: str) -> None:
    table = tables_of(name)
    assert len(table) > 0
    assert set(table.evidence) <= set(map(str, Evidence))
    assert table.columns.is_unique
    draw = getattr(plots, name, None)
    if draw is not None:
        figure = draw(table)
        assert figure.axes
        plt.close(figure)


@pytest.mark.parametrize("name", profile_names())
def test_profiles_hold_valid_settings(name: str) -> None:
    config = get_profile(name).config("tempo", Config)
    assert set(config.loss_arms) <= set(pretraining.ARMS)
    assert "Tempo" in config.loss_arms
    assert any(arm.startswith("control") for arm in config.loss_arms)


def test_bad_config_is_told() -> None:
    with pytest.raises(ValueError, match="seeds"):
        Config(seeds=())
