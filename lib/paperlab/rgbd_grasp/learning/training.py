"""The training loop: seeded, resumable to the bit, validated on scenes that it does not learn from."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.geometry.checks import Floats, Ints
from paperlab.rgbd_grasp.learning.augment import cropped, jittered
from paperlab.rgbd_grasp.learning.losses import heatmap_loss
from paperlab.rgbd_grasp.learning.metrics import judge_samples
from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.learning.samples import Samples
from paperlab.rgbd_grasp.network.avn import AngleViewNet
from paperlab.rgbd_grasp.network.inputs import normalized

if TYPE_CHECKING:
    import pandas as pd

_ORDER, _AUGMENT = 0, 1  # streams of random numbers
_JUDGED = 40  # validation samples, spread over all


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and after how many iterations each time."""

    path: Path
    every: int = 50


class Training:
    """A net in training; what iteration i sees depends on the recipe's seed and on i alone. GPUs may round otherwise.

    Raises ValueError where the net and the samples do not fit, or where a scene is in both splits.
    """

    def __init__(self, net: AngleViewNet, train: Samples, validation: Samples, recipe: Recipe) -> None:
        _check(net, train, validation)
        self.net, self.train, self.validation, self.recipe = net, train, validation, recipe
        self.device = next(net.parameters()).device
        if recipe.loss == "bce":
            net.start_at(torch.from_numpy(train.class_prior()), recipe.seed)
        self.optimizer = torch.optim.Adam(net.parameters(), recipe.learning_rate)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=recipe.iterations, cycle_momentum=False
        )
        self.done = 0
        self.losses: list[float] = []
        self.history: list[dict[str, float]] = []

    def chosen(self, iteration: int) -> Ints:
        """Return the samples (B,) of an iteration: every epoch in another order, its last short batch left out."""
        batch = min(self.recipe.batch, len(self.train))
        epoch, place = divmod(iteration, len(self.train) // batch)
        order = np.random.default_rng((self.recipe.seed, _ORDER, epoch)).permutation(len(self.train))
        return order[place * batch : (place + 1) * batch]

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the augmented input (B, 3 or 6, H, W) and labels (B, C, rows, columns) of an iteration."""
        recipe, modality = self.recipe, self.net.config.modality
        rng = np.random.default_rng((recipe.seed, _AUGMENT, iteration))
        chosen = self.chosen(iteration)
        images = self.train.images(chosen, modality, self.device)
        labels = self.train.labels(chosen, self.device)
        if recipe.jitter and modality.startswith("rgb"):
            images = torch.cat([jittered(images[:, :3], recipe.jitter, rng), images[:, 3:]], dim=1)
        if recipe.smallest_crop < 1:
            images, labels = cropped(images, labels, recipe.smallest_crop, rng)
        return normalized(images, modality), labels.to(memory_format=torch.channels_last)

    def step(self) -> float:
        """Take one step and return its loss."""
        recipe = self.recipe
        self.net.train()
        images, labels = self.batch(self.done)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            outputs = self.net(images)
        loss = heatmap_loss(outputs, labels, recipe.loss, recipe.positive_weight)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), recipe.gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        self.losses.append(value := float(loss.detach()))
        return value

    def run(self, checkpoint: Checkpoint | None = None, progress: bool = False) -> pd.DataFrame:
        """Train to the end, from the checkpoint where there is one; return the history, a row per validation."""
        import pandas as pd

        recipe = self.recipe
        if checkpoint and checkpoint.path.exists():
            self.restore(checkpoint.path)
        with threads(recipe.threads), tqdm(total=recipe.iterations, initial=self.done, disable=not progress) as bar:
            bar.set_description(f"AVN {self.net.config.modality}")
            while self.done < recipe.iterations:
                bar.set_postfix_str(f"loss {self.step():.4f}", refresh=False)
                bar.update()
                if self.done % recipe.validate_every == 0 or self.done == recipe.iterations:
                    self.history.append(self.validated())
                if checkpoint and self.done % checkpoint.every == 0:
                    self.keep(checkpoint.path)
        self.net.eval()
        return pd.DataFrame(self.history)

    def validated(self) -> dict[str, float]:
        """Return iteration, training loss since the last time, and loss and precision on the validation split."""
        since = self.losses[-self.recipe.validate_every :]
        spread = np.linspace(0, len(self.validation) - 1, min(_JUDGED, len(self.validation))).astype(int)
        losses: list[float] = []

        def predict(index: int) -> Floats:
            outputs = outputs_of(self.net, self.validation, index)
            labels = self.validation.labels([index], self.device)
            losses.append(float(heatmap_loss(outputs, labels, self.recipe.loss, self.recipe.positive_weight)))
            return outputs[0].cpu().numpy()

        found = judge_samples(predict, self.validation, self.net.config.anchors, spread)
        shares = {name: float(found[name].mean()) for name in ("exact", "tolerant", "on_object")}
        return {
            "iteration": self.done,
            "loss": float(np.mean(since)),
            "validation_loss": float(np.mean(losses)),
            **shares,
        }

    def keep(self, path: Path) -> None:
        """Write the whole state, at once or not at all."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "schedule")}
        buffer = io.BytesIO()
        torch.save(state | {"done": self.done, "losses": self.losses, "history": self.history}, buffer)
        write_atomic(path, buffer.getvalue())

    def restore(self, path: Path) -> None:
        """Go on from a state; raises ValueError, naming the file, where it is none of this training."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            for name in ("net", "optimizer", "schedule"):
                getattr(self, name).load_state_dict(state[name])
            self.done, self.losses, self.history = state["done"], state["losses"], state["history"]
        except Exception as error:  # whatever the restricted unpickler or a net of another shape raises
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path}: is no checkpoint of this training ({first}); delete it to begin anew") from None


def _check(net: AngleViewNet, train: Samples, validation: Samples) -> None:
    config = net.config
    wanted = config.classes, config.grid.rows, config.grid.columns
    for name, samples in (("train", train), ("validation", validation)):
        if samples.heatmap_shape != wanted or samples.rgb.shape[2:0:-1] != config.image:
            raise ValueError(
                f"{name}: samples have heatmaps {samples.heatmap_shape} and images {samples.rgb.shape[2:0:-1]}, "
                f"the net has {wanted} and {config.image}"
            )
    shared = np.intersect1d(train.scenes, validation.scenes)
    if len(shared):
        raise ValueError(f"validation: shares scene {shared[0]} with the training split, needs scenes of its own")


@torch.no_grad()
def outputs_of(net: AngleViewNet, samples: Samples, index: int) -> Tensor:
    """Return the raw outputs (1, C, rows, columns) of a net in evaluation mode for one sample."""
    net.eval()
    device = next(net.parameters()).device
    images = samples.images([index], net.config.modality, device)
    outputs: Tensor = net(normalized(images, net.config.modality))
    return outputs


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
