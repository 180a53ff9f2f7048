"""Training of the small networks on a CPU, with a cache of trained weights by content.

The key of a trained network is the SHA-256 of all that decides about its weights: the training images and labels, the
initial weights, the recipe, the source of this file and of the network definitions, and torch's version. What is found
under the key is what training would give, so a run that finds it and one that does not agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from paperlab.aquant import networks
from paperlab.aquant.data.tasks import Data, DigitsTask, GaborTask, Split
from paperlab.aquant.networks.layout import channels_last
from paperlab.lab.cache import content_key
from paperlab.lab.files import write_atomic
from paperlab.lab.paths import cache_dir


@dataclass(frozen=True)
class Recipe:
    """A network, the task it learns, and how: SGD with Nesterov momentum under a one-cycle schedule.

    The defaults are for `GaborTask`; `recipe` gives those of a task.
    """

    network: str = "N1"
    task: GaborTask | DigitsTask = field(default_factory=GaborTask)
    seed: int = 0
    epochs: int = 10
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Recipe.{name}: {getattr(self, name)} is not positive")
        if self.network not in networks.SMALL | networks.NETWORKS:
            raise ValueError(f"Recipe.network: {self.network!r}; use one of {', '.join(networks.SMALL)}")


def recipe(network: str = "N1", task: GaborTask | DigitsTask | None = None, seed: int = 0) -> Recipe:
    """Return the recipe for a network on a task: the digits, of which there are few, take small batches."""
    if isinstance(task, DigitsTask):
        return Recipe(network, task, seed, epochs=20, batch=32, learning_rate=0.05)
    return Recipe(network, task or GaborTask(), seed)


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, with its data; `key` is its content's hash."""

    model: nn.Module
    data: Data
    test_accuracy: float
    key: str


def trained(recipe: Recipe | None = None, cached: bool = True) -> Trained:
    """Return the network that `recipe` leads to, from the cache where it is there, in about a minute where not.

    It runs on one thread, on which the weights depend. A cache that cannot be written is a warning.
    """
    recipe = recipe or Recipe()
    data = recipe.task.load()
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(recipe.seed)
    model = networks.build(recipe.network, data.classes)
    torch.random.set_rng_state(torch_state)
    key = _key(recipe, data, model)
    path = cache_dir() / "aquant" / f"{recipe.network}-{key[:24]}.safetensors"
    stored = _read(path, model, key) if cached else None
    if stored is None:
        with one_thread():
            train(model, data.train, recipe)
            stored = accuracy(model, data.test)
        if cached:
            _write(path, model, key, stored)
    return Trained(model.eval().requires_grad_(False), data, stored, key)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small networks run no faster on more, and far slower beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(model: nn.Module, split: Split, recipe: Recipe) -> list[float]:
    """Train `model` in place on its device; return the mean loss of every epoch."""
    device = split.labels.device
    split = Split(channels_last(split.images), split.labels)
    model.train()
    steps = max(len(split) // recipe.batch, 1)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    losses = []
    for _ in range(recipe.epochs):
        order = torch.randperm(len(split), generator=generator).to(device)
        total = torch.zeros((), device=device)
        for batch in order[: steps * recipe.batch].split(recipe.batch):
            loss = _loss(model, split, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        losses.append(float(total) / steps)
    model.eval()
    return losses


def _loss(model: nn.Module, split: Split, batch: Tensor) -> Tensor:
    """Return the cross entropy; on a GPU the network runs in bfloat16, its weights and statistics in float32."""
    with torch.autocast("cuda", torch.bfloat16, enabled=split.labels.is_cuda):
        return F.cross_entropy(model(split.images[batch]), split.labels[batch])


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, batch: int = 500) -> float:
    """Return the share of right answers, in percent."""
    return 100 * float(correct(model, split, batch).double().mean())


@torch.no_grad()
def correct(model: nn.Module, split: Split, batch: int = 500) -> Tensor:
    """Return for each image whether the answer is right, for tests that pair the answers of two networks."""
    answers = [model(channels_last(images)).argmax(1) for images in split.images.split(batch)]
    return torch.cat(answers) == split.labels


def _key(recipe: Recipe, data: Data, model: nn.Module) -> str:
    settings = asdict(recipe) | {"task": repr(recipe.task), "torch": torch.__version__.split("+")[0]}
    parts: list[str | bytes] = [data.train.digest(), data.test.digest()]
    for name, tensor in model.state_dict().items():
        parts += [name, tensor.contiguous().numpy().tobytes()]
    return content_key(settings, parts, code=(__name__, networks.__name__))


def _read(path: Path, model: nn.Module, key: str) -> float | None:
    """Fill `model` from the cache and return its accuracy; None where nothing usable lies there."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            return float(about["test_accuracy"])
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError):
        return None


def _write(path: Path, model: nn.Module, key: str, test_accuracy: float) -> None:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    try:
        write_atomic(path, save(state, {"key": key, "test_accuracy": repr(test_accuracy)}))
    except PermissionError:
        warnings.warn(f"cannot write {path.parent}; set PAPERLAB_CACHE to keep trained networks", stacklevel=3)
