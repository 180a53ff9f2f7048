"""The recipe that compares losses: equal arms agree, wrong ones are caught, and the model learns."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from paperlab.tempo.training import finetuning, pretraining
from paperlab.tempo.training.finetuning import Task, accuracy_table, noisy_progressions
from paperlab.tempo.training.pretraining import ARMS, Recipe, agreement_table, batches, loss_table, pretrain

SHORT = Recipe(steps=12)


@pytest.fixture(scope="module")
def losses() -> pd.DataFrame:
    return loss_table(SHORT, tuple(ARMS), (3,))


def test_batches_are_progressions_with_masked_labels() -> None:
    first, again = (next(batches(SHORT, 5)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    ids, labels = first["input_ids"], first["labels"]
    masked = ids == SHORT.vocabulary - 1
    assert torch.equal(masked, labels != -100)
    assert 0.05 < masked.double().mean() < 0.3
    clean = torch.where(masked, labels, ids)
    steps = clean.diff(dim=1) % (SHORT.vocabulary - 1)
    assert (steps == steps[:, :1]).all()
    assert steps.unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("arm", ["Tempo", "Tempo, bit mask"])
def test_tempo_follows_the_baseline_step_by_step(losses: pd.DataFrame, arm: str) -> None:
    assert losses.gap[losses.arm == arm].max() <= 1e-5


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.startswith("control")])
def test_every_control_is_caught(losses: pd.DataFrame, arm: str) -> None:
    gaps = losses.gap[losses.arm == arm]
    assert gaps.max() > 1e-4
    if arm != "control: other dropout seed":
        assert gaps.iloc[0] == 0, "a control's forward pass is right; only its gradients are wrong"


def test_agreement_table_reads_the_losses(losses: pd.DataFrame) -> None:
    table = agreement_table(losses, SHORT).set_index("arm")
    assert pd.isna(table.loc["baseline", "first_step_over_1e-6"])
    assert table.loc["control: other dropout seed", "first_step_over_1e-6"] == 1
    assert table.loc["Tempo", "largest_gap"] <= 1e-5


def test_a_diverged_arm_does_not_look_equal() -> None:
    frame = pd.DataFrame(
        {"arm": "x", "seed": 0, "step": [1, 2], "loss": [1.0, float("nan")], "gap": [0.0, float("nan")]}
    )
    assert agreement_table(frame, SHORT)["first_step_over_1e-4"].item() == 2


def test_gamma_zero_channels_really_occur() -> None:
    model = pretraining.build(SHORT, 0)
    zeros = [p for n, p in model.named_parameters() if "LayerNorm.weight" in n and "layer." in n and (p == 0).any()]
    assert len(zeros) == 2 * SHORT.layers


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="arm is 'temp'; it must be one of baseline, Tempo"):
        pretrain(SHORT, "temp", 0)
    with pytest.raises(ValueError, match="steps 0 at least 1"):
        Recipe(steps=0)


@pytest.mark.slow
def test_the_recipe_learns_and_tempo_learns_the_same() -> None:
    recipe = Recipe()
    table = agreement_table(loss_table(recipe, ("baseline", "Tempo"), (0,)), recipe).set_index("arm")
    assert (table.of_unigram_entropy < 0.7).all()
    assert table.loc["Tempo", "largest_gap_100_steps"] <= 1e-5
    assert table.loc["Tempo", "largest_gap"] <= 1e-3


def test_fine_tuning_starts_from_the_pretrained_encoder() -> None:
    pretrained, _ = pretrain(Recipe(steps=2), "Tempo", 0)
    model = finetuning.classifier(pretrained, SHORT, 0)
    state = pretrained.bert.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.bert.state_dict().items() if name in state)
    assert model.classifier.out_features == SHORT.strides


def test_fine_tuning_task_and_table() -> None:
    task = Task(steps=2, noise=0.0, test_sequences=64)
    data = noisy_progressions(SHORT, task, 64, torch.Generator().manual_seed(0))
    stride = (data["input_ids"][:, 1] - data["input_ids"][:, 0]) % (SHORT.vocabulary - 1)
    assert torch.equal(stride - 1, data["labels"])
    table = accuracy_table(Recipe(steps=2), task, ("baseline", "Tempo"), (0,))
    assert table.accuracy.nunique() == 1
    assert table.accuracy.between(0, 1).all()
