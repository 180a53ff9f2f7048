"""What the cells of the GPU run measure: frames, speed, nets in training, their heatmaps, their grasps.

It has not run on a GPU yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from paperlab.lab import timing
from paperlab.lab.gpu_run import stopped_at
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.gpu.frames import Frames
from paperlab.rgbd_grasp.gpu.scope import Scope
from paperlab.rgbd_grasp.learning.losses import heatmap_loss
from paperlab.rgbd_grasp.learning.metrics import judge_samples, prior_heatmap
from paperlab.rgbd_grasp.learning.samples import Samples
from paperlab.rgbd_grasp.learning.training import Checkpoint, Training, outputs_of
from paperlab.rgbd_grasp.network.avn import AngleViewNet, build, parameters
from paperlab.rgbd_grasp.network.config import Modality
from paperlab.rgbd_grasp.prediction.avn import Avn

SHARES = ("exact", "tolerant", "on_object")
_CHECKPOINT_EVERY = 500


@dataclass(frozen=True)
class Bench:
    """Where to measure, until when, and where frames and weights lie."""

    scope: Scope
    device: str
    folder: Path
    end_s: float
    read: Callable[[str], pd.DataFrame]  # the table of another stage

    def has_frames(self) -> bool:
        """Tell whether the frames of all splits have been made."""
        made = self.read("frames")
        return not made.empty and all(
            ((made.split == split) & (made.scenes == scenes)).any() for split, scenes in self.scope.scenes.items()
        )

    @cached_property
    def frames(self) -> Frames:
        """The generated frames."""
        return Frames(self.scope, self.folder / "data")

    @cached_property
    def learning(self) -> tuple[Samples, Samples]:
        """Samples for training and validation."""
        return self.frames.learning()

    @cached_property
    def tests(self) -> dict[str, Samples]:
        """Samples of the test splits."""
        return {split: self.frames.samples(split) for split in self.scope.test_splits}

    def weights(self, modality: Modality, seed: int) -> Path:
        """Return where a trained net lies."""
        return self.folder / "weights" / f"{modality}-{seed}.safetensors"

    def rows(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """Return rows that name the machine."""
        return pd.DataFrame(rows).assign(**timing.machine(self.device))


def frames(bench: Bench, split: str, scenes: int) -> pd.DataFrame:
    """Generate and encode the first scenes of a split; one row on all of them."""
    begin_s = time.perf_counter()
    ids, views = bench.frames.make(split, scenes), bench.scope.sizes_of(split).views
    time_s = time.perf_counter() - begin_s
    row: dict[str, Any] = {"split": split, "scenes": len(ids), "frames": len(ids) * views, "time_s": time_s}
    if scenes == bench.scope.scenes[split]:
        samples = bench.frames.samples(split)
        row["positives_per_frame"] = len(samples.positives) / len(samples)
        row["positive_percent"] = 100 * row["positives_per_frame"] / float(np.prod(samples.heatmap_shape))
    return bench.rows([row])


def speed(bench: Bench, modality: Modality, batch: int) -> pd.DataFrame:
    """Time inference and training steps on random input, beside what the device can do at most."""
    scope = bench.scope
    net = build(scope.net_for(modality)).to(bench.device)
    width, height = scope.net.image
    channels = 6 if modality == "rgb_normals" else 3
    x = torch.rand(batch, channels, height, width, device=bench.device).to(memory_format=torch.channels_last)
    grid = scope.net.grid
    labels = torch.rand(batch, scope.net.classes, grid.rows, grid.columns, device=bench.device) < 0.002
    optimizer = torch.optim.Adam(net.parameters())
    rows = []
    for precision, arm in product(("bf16", "fp32"), ("inference", "training")):
        with exact_convolutions():
            action = (
                _inference(net, x, precision) if arm == "inference" else _step(net, x, labels, optimizer, precision)
            )
            net.train(arm == "training")
            with FlopCounterMode(display=False) as counter:
                action()
            times = timing.timed(action, scope.repeats, bench.device)
            rows.append(_speed_row(bench, counter.get_total_flops(), times, precision) | {"arm": arm})
    shared = {"modality": modality, "batch": batch, "parameters": parameters(net)}
    return bench.rows([shared | row for row in rows])


def _speed_row(bench: Bench, flops: int, times: list[float], precision: str) -> dict[str, Any]:
    time_s = float(np.median(times))
    roof = timing.roofline(bench.device, precision)
    row = {"precision": precision, "time_s": time_s, "TFLOPs_per_s": flops / time_s / 1e12}
    if roof is not None:
        row["percent_of_peak"] = 100 * flops / time_s / roof.peak_flops_per_s
    if bench.device == "cuda":
        row["peak_memory_GiB"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return row


def _inference(net: AngleViewNet, x: torch.Tensor, precision: str) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            net(x)

    return run


def _step(
    net: AngleViewNet, x: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer, precision: str
) -> Callable[[], object]:
    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = net(x)
        loss = heatmap_loss(outputs, labels, "bce")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def training(bench: Bench, modality: Modality, seed: int) -> pd.DataFrame:
    """Train a net and keep its weights; rows are its validations. Empty where the frames are not all there yet.

    A training that is cut short goes on the next time.
    """
    if not bench.has_frames():
        return pd.DataFrame()
    recipe = replace(bench.scope.recipe, seed=seed)
    net = build(bench.scope.net_for(modality), seed).to(bench.device)
    path = bench.weights(modality, seed)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint"), _CHECKPOINT_EVERY)
    begin_s = time.perf_counter()
    with stopped_at(bench.end_s):
        task = Training(net, *bench.learning, recipe)
        history = task.run(checkpoint)
    Avn(net, logits=recipe.loss == "bce").save(path)
    checkpoint.path.unlink(missing_ok=True)
    shared = {"modality": modality, "seed": seed, "batch": recipe.batch, "samples": len(bench.learning[0])}
    rows = history.to_dict("records")
    return bench.rows([shared | {str(k): v for k, v in row.items()} for row in rows]).assign(
        last_run_s=time.perf_counter() - begin_s
    )


def heatmaps(bench: Bench, modality: Modality, seed: int) -> pd.DataFrame:
    """Judge heatmaps of a trained net and of an untrained one on the test splits; empty where none is trained."""
    path = bench.weights(modality, seed)
    if not path.exists():
        return pd.DataFrame()
    nets = {"trained": Avn.load(path).net, "untrained": build(bench.scope.net_for(modality), seed)}
    rows = []
    for arm, net in nets.items():
        net.to(bench.device)
        for split, samples in bench.tests.items():
            shares = _shares(bench, samples, lambda i, n=net, s=samples: outputs_of(n, s, i)[0].cpu().numpy())  # type: ignore[misc]
            rows.append({"modality": modality, "seed": seed, "split": split, "arm": arm} | shares)
    return bench.rows(rows)


def prior(bench: Bench) -> pd.DataFrame:
    """Judge the class prior of the training split on the test frames' true object masks."""
    if not bench.has_frames():
        return pd.DataFrame()
    train, rows = bench.learning[0], []
    for split, samples in bench.tests.items():
        shares = _shares(bench, samples, lambda i, s=samples: prior_heatmap(train, s.objects[i]))  # type: ignore[misc]
        rows.append({"split": split, "arm": "class prior x true mask"} | shares)
    return bench.rows(rows)


def _shares(bench: Bench, samples: Samples, predict: Callable[[int], Floats]) -> dict[str, float]:
    found = judge_samples(predict, samples, bench.scope.net.anchors)
    return {"samples": len(found)} | {name: float(found[name].mean()) for name in SHARES}


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Run what is float32 in float32 proper: TF32 has another peak."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
