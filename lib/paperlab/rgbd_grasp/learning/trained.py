"""Trained nets, kept by content: what is found under a key is what training would give.

The key is the SHA-256 of all that decides about the weights: the net's configuration, the recipe, both splits, the
source of the net and of the training, and torch's version.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from paperlab.lab.cache import content_key
from paperlab.lab.paths import cache_dir
from paperlab.rgbd_grasp import learning, network
from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.learning.samples import Samples
from paperlab.rgbd_grasp.learning.training import Checkpoint, Training
from paperlab.rgbd_grasp.network.avn import build
from paperlab.rgbd_grasp.network.config import AvnConfig
from paperlab.rgbd_grasp.prediction.avn import Avn

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained net as a detector, how it got there, and its content's hash."""

    avn: Avn
    history: pd.DataFrame
    key: str


def trained(
    config: AvnConfig,
    train: Samples,
    validation: Samples,
    recipe: Recipe | None = None,
    *,
    cached: bool = True,
    device: str = "cpu",
    progress: bool = False,
) -> Trained:
    """Return the net that `recipe` leads to, from the cache where it is there.

    A killed training goes on from its last checkpoint. A cache that cannot be written is a warning.
    """
    recipe = recipe or Recipe()
    key = net_key(config, train, validation, recipe, device)
    folder = cache_dir() / "rgbd_grasp"
    path = folder / f"{config.modality}-{key[:24]}.safetensors"
    stored = _read(path, key) if cached else None
    if stored is not None:
        return stored
    net = build(config, recipe.seed).to(device)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint")) if cached and _writable(folder) else None
    history = Training(net, train, validation, recipe).run(checkpoint, progress)
    avn = Avn(net.to("cpu"), logits=recipe.loss == "bce")
    if checkpoint:
        avn.save(path, {"key": key, "history": json.dumps(history.to_dict("records"))})
        checkpoint.path.unlink(missing_ok=True)
    return Trained(avn, history, key)


def net_key(config: AvnConfig, train: Samples, validation: Samples, recipe: Recipe, device: str = "cpu") -> str:
    """Return the hash of all that decides about the trained weights."""
    settings = asdict(config) | asdict(recipe) | {"torch": torch.__version__.split("+")[0], "device": device}
    return content_key(settings, (train.digest(), validation.digest()), code=(learning.__name__, network.__name__))


def _read(path: Path, key: str) -> Trained | None:
    """Return what the cache has under the key; None where nothing usable lies there."""
    import pandas as pd

    try:
        avn, about = Avn.load_with_metadata(path)
        if about.get("key") != key:
            return None
        return Trained(avn, pd.DataFrame(json.loads(about["history"])), key)
    except (ValueError, KeyError):
        return None


def _writable(folder: Path) -> bool:
    from paperlab.lab.files import write_atomic

    try:
        write_atomic(folder / ".writable", "").unlink(missing_ok=True)
    except PermissionError:
        warnings.warn(f"cannot write {folder}; set PAPERLAB_CACHE to keep trained nets", stacklevel=3)
        return False
    return True
