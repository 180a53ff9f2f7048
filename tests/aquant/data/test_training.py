"""Training is deterministic, and what the cache returns is what training gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from paperlab.aquant.data import training
from paperlab.aquant.data.tasks import DigitsTask, GaborTask
from paperlab.aquant.data.training import Recipe, accuracy, correct, recipe, trained

TINY = Recipe("N1", GaborTask(classes=3, train_images=192, test_images=60), epochs=2, batch=32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "a cache"
    monkeypatch.setenv("PAPERLAB_CACHE", str(folder))
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_cache_holds_what_training_gives(cache, monkeypatch):
    torch.set_num_threads(2)
    fresh = trained(TINY, cached=False)
    assert not cache.exists()
    assert torch.get_num_threads() == 2
    torch.manual_seed(99)  # which must not matter
    stored = trained(TINY)
    (file,) = (cache / "aquant").iterdir()
    monkeypatch.setattr(training, "train", None)
    found = trained(TINY)
    for other in (stored, found):
        assert same(fresh.model, other.model)
        assert (other.test_accuracy, other.key) == (fresh.test_accuracy, fresh.key)
    assert file.name == f"N1-{fresh.key[:24]}.safetensors"
    assert found.test_accuracy == accuracy(found.model, found.data.test)
    assert correct(found.model, found.data.test).double().mean().item() * 100 == pytest.approx(found.test_accuracy)
    assert not found.model.training


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(TINY)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 1}, {"network": "N2"}, {"task": replace(TINY.task, seed=1)}]
)
def test_what_decides_about_the_weights_changes_the_key(change):
    quick = replace(TINY, epochs=1) if "epochs" not in change else TINY
    assert trained(replace(quick, **change)).key != trained(quick).key


def test_a_spoiled_cache_is_trained_anew(cache):
    good = trained(TINY)
    (file,) = (cache / "aquant").iterdir()
    content = file.read_bytes()
    for spoiled in (b"", content[:100], content.replace(good.key.encode(), b"0" * 64)):
        file.write_bytes(spoiled)
        assert same(trained(TINY).model, good.model)
        with safe_open(file, framework="pt") as stored:
            assert stored.metadata()["key"] == good.key


def test_a_cache_that_cannot_be_written_is_a_warning(cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="set PAPERLAB_CACHE to keep trained networks"):
        assert trained(replace(TINY, epochs=1)).test_accuracy > 0


def test_a_network_learns_the_digits():
    quick = replace(recipe("N1", DigitsTask()), epochs=3)
    assert trained(quick).test_accuracy > 80


def test_bad_recipes_are_told():
    with pytest.raises(ValueError, match=r"Recipe\.epochs: 0 is not positive"):
        Recipe(epochs=0)
    with pytest.raises(ValueError, match=r"Recipe\.network: 'N9'; use one of N1, N2, N3"):
        Recipe("N9")


@pytest.mark.slow
@pytest.mark.parametrize("network", ["N1", "N2", "N3"])
def test_the_small_networks_reach_their_accuracy(network):
    """Well above what two bits leave of them, so that methods can be told apart."""
    assert trained(recipe(network)).test_accuracy > 85
    assert trained(recipe(network, DigitsTask())).test_accuracy > 96
