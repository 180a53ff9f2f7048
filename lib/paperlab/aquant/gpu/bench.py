"""What the cells of the GPU run measure: kernels beside convolutions, trained networks, their quantized accuracy.

It has not run on a GPU yet. Convolutions of quantized networks run in float32 proper: TF32 would round the products of
levels and scales and so move sums across thresholds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load, save

from paperlab.aquant import networks
from paperlab.aquant.border import BorderSpec
from paperlab.aquant.data.tasks import Data, GaborTask
from paperlab.aquant.data.training import Recipe, accuracy, train
from paperlab.aquant.deploy.cost import layer_cases, layer_costs, overheads, patch_costs
from paperlab.aquant.frame.quantize import quantize
from paperlab.lab import timing
from paperlab.lab.files import write_atomic
from paperlab.lab.gpu_run import stopped_at

METHODS: dict[str, dict[str, Any]] = {
    "rtn": {"method": "rtn"},
    "aquant": {"method": "aquant"},
    "qdrop": {"method": "qdrop"},
    "brecq": {"method": "brecq"},
    "aquant, free thresholds": {"method": "aquant", "border": BorderSpec(bound="none")},
    "adaround": {"method": "adaround"},
}
ROUNDING_WEIGHTS = {"MobileNetV2": 0.1}  # AdaRound's λ as published for this network; the recipe's default elsewhere


@dataclass(frozen=True)
class Scope:
    """How much a run measures."""

    timed_networks: tuple[str, ...] = tuple(networks.NETWORKS)
    timed_image: tuple[int, int, int] = (3, 224, 224)
    batches: tuple[int, ...] = (32, 1, 256)
    timed_bits: tuple[int, ...] = (2, 4)
    patch_networks: tuple[str, ...] = ("ResNet-18", "MobileNetV2")
    patch_layers: int | None = None  # None: all
    repeats: int = 30
    task: GaborTask = field(default_factory=lambda: GaborTask(classes=100, size=64, train_images=100_000))
    trained_networks: tuple[str, ...] = ("ResNet-18", "MobileNetV2", "RegNetX-600M")
    epochs: int = 15
    bits: tuple[tuple[int, int], ...] = ((2, 2), (4, 4), (3, 3), (2, 4))  # weights, activations
    methods: tuple[str, ...] = tuple(METHODS)
    iterations: int = 5_000
    calibration: int = 1_024


FULL = Scope()


def smoke() -> Scope:
    """Return the rehearsal: the smallest network in every role."""
    return Scope(
        timed_networks=("N1",),
        timed_image=(3, 16, 16),
        batches=(1, 2),
        timed_bits=(2,),
        patch_networks=("N3",),
        patch_layers=1,
        repeats=1,
        task=GaborTask(classes=3, size=16, train_images=192, test_images=48),
        trained_networks=("N1",),
        epochs=1,
        bits=((2, 2),),
        methods=("rtn", "aquant", "qdrop"),
        iterations=2,
        calibration=32,
    )


class Bench:
    """Where to measure, until when, and where weights lie; `read` returns the table of another stage."""

    def __init__(
        self, scope: Scope, device: str, folder: Path, end_s: float, read: Callable[[str], pd.DataFrame]
    ) -> None:
        self.scope, self.device, self.folder, self.end_s, self.read = scope, device, folder, end_s, read
        self._data: Data | None = None

    @property
    def data(self) -> Data:
        """The task's images on the device, made when they are first asked for."""
        if self._data is None:
            self._data = self.scope.task.load(self.device)
        return self._data

    def weights(self, network: str) -> Path:
        """Return where a trained network lies."""
        return self.folder / "weights" / f"{network}.safetensors"


def kernels(bench: Bench, network: str, batch: int, bits: int) -> pd.DataFrame:
    """Time quantizers and convolutions of all of a network's layers; `network_overhead` sums them up by arm."""
    scope = bench.scope
    cases = layer_cases(network, scope.timed_image)
    costs = pd.concat(
        [layer_costs(case, batch, bits, scope.repeats, bench.device) for case in cases], ignore_index=True
    )
    return costs.assign(network=network, network_overhead=costs.arm.map(overheads(costs)))


def patches(bench: Bench, network: str, batch: int) -> pd.DataFrame:
    """Time rounding per kernel position, fused with im2col, beside rounding per channel."""
    scope = bench.scope
    costs = [
        patch_costs(case, batch, scope.timed_bits[0], scope.repeats, bench.device)
        for case in layer_cases(network, scope.timed_image)[: scope.patch_layers]
    ]
    return pd.concat(costs, ignore_index=True).assign(network=network)


def training(bench: Bench, network: str) -> pd.DataFrame:
    """Train a full-size network on the procedural task and keep its weights."""
    scope, data = bench.scope, bench.data
    torch.manual_seed(0)
    model = networks.build(network, data.classes).to(bench.device)
    recipe = Recipe(network, scope.task, epochs=scope.epochs, batch=min(256, len(data.train)))
    begin_s = time.perf_counter()
    with stopped_at(bench.end_s):
        losses = train(model, data.train, recipe)
    found = accuracy(model, data.test)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(bench.weights(network), save(state))
    row = {"network": network, "epochs": scope.epochs, "last_loss": losses[-1], "test_accuracy": found}
    return pd.DataFrame([row | {"time_s": time.perf_counter() - begin_s}]).assign(**timing.machine(bench.device))


def quantized_accuracy(bench: Bench, network: str, w_bits: int, a_bits: int, arm: str) -> pd.DataFrame:
    """Quantize a trained network and judge it; empty where it is not trained yet.

    A run that is cut short keeps the units it has learned, and a later one goes on from there.
    """
    if not bench.weights(network).exists():
        return pd.DataFrame()
    scope, data = bench.scope, bench.data
    model = networks.build(network, data.classes)
    model.load_state_dict(load(bench.weights(network).read_bytes()))
    model.to(bench.device).eval()
    settings: dict[str, Any] = {"iterations": scope.iterations, **METHODS[arm]}
    if network in ROUNDING_WEIGHTS:
        settings["rounding_weight"] = ROUNDING_WEIGHTS[network]
    units = bench.folder / "units" / f"{network}-w{w_bits}a{a_bits}-{arm.replace(', ', '-').replace(' ', '-')}"
    begin_s = time.perf_counter()
    with exact_convolutions(), stopped_at(bench.end_s):
        images = data.calibration(scope.calibration, seed=0)
        found = quantize(model, images, w_bits=w_bits, a_bits=a_bits, resume=units, **settings)
        time_s = time.perf_counter() - begin_s
        row = {
            "network": network, "w_bits": w_bits, "a_bits": a_bits, "arm": arm, "iterations": scope.iterations,
            "images": scope.calibration, "float_accuracy": accuracy(model, data.test),
            "test_accuracy": accuracy(found, data.test), "test_images": len(data.test), "time_s": time_s,
        }  # fmt: skip
    shutil.rmtree(units)
    return pd.DataFrame([row]).assign(**timing.machine(bench.device))


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Run convolutions and products in float32 proper, by the same algorithms each time."""
    backends = torch.backends
    before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic = before
