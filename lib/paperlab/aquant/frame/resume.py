"""One file per learned unit, so that an interrupted run goes on where it stopped, with the same result."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor, nn

from paperlab.aquant.frame.insert import layers_of
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.frame.report import UnitReport
from paperlab.lab.cache import content_key
from paperlab.lab.files import write_atomic, write_json


def fingerprint(model: nn.Module, images: Tensor, recipe: Recipe) -> str:
    """Return a hash of everything that a run's result depends on."""
    tensors = [*sorted(model.state_dict().items()), ("images", images)]
    parts = ((name, tensor.detach().cpu().contiguous().numpy().tobytes()) for name, tensor in tensors)
    return content_key(asdict(recipe), chain.from_iterable(parts))


class Checkpoints:
    """The folder of a run; without a folder nothing is stored.

    Raises:
        ValueError: the folder belongs to a run with another model, calibration set or recipe.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        if folder is None:
            return
        stamp = folder / "run.json"
        if stamp.exists() and json.loads(stamp.read_text())["fingerprint"] != key:
            raise ValueError(
                f"resume: {folder} holds another run (model, images or settings differ); give a new folder"
            )
        write_json(stamp, {"fingerprint": key})

    def restore(self, sweep: int, index: int, unit: nn.Module) -> UnitReport | None:
        """Put a stored unit's state into `unit` and return its report; None where nothing is stored."""
        path = self._path(sweep, index)
        if path is None or not path.exists():
            return None
        state = load(path.read_bytes())
        for name, layer in layers_of(unit).items():
            key = f"{name}.weight_quantizer.up"
            if key in state and layer.weight_quantizer.up is None:
                up = state[key].to(layer.weight_quantizer.scale.device)
                layer.weight_quantizer.up = nn.Parameter(up, requires_grad=False)
            if key in state:
                layer.weight_quantizer.harden()
        unit.load_state_dict(state)
        return UnitReport(**json.loads(path.with_suffix(".json").read_text()))

    def store(self, sweep: int, index: int, unit: nn.Module, report: UnitReport) -> None:
        """Store a learned unit."""
        path = self._path(sweep, index)
        if path is None:
            return
        state = {name: tensor.detach().cpu().clone() for name, tensor in unit.state_dict().items()}
        write_json(path.with_suffix(".json"), asdict(report))
        write_atomic(path, save(state))  # last: its presence says that the unit is complete

    def _path(self, sweep: int, index: int) -> Path | None:
        return None if self.folder is None else self.folder / f"sweep{sweep}_unit{index:03}.safetensors"
