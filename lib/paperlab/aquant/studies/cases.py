"""One trained net, quantized by one arm and tested: the unit of every accuracy table; each case runs once a process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from paperlab.aquant.border import BorderSpec
from paperlab.lab.cache import content_key
from paperlab.lab.workers import in_processes

_FREE = BorderSpec(bound="none")
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "RTN": ("rtn", {}),
    "RTN, min-max": ("rtn", {"scales": "minmax"}),
    "closed form": ("aquant_cf", {}),
    "AdaRound": ("adaround", {}),
    "BRECQ": ("brecq", {}),
    "BRECQ, prefix steps": ("brecq", {"steps_from_prefix": True}),
    "no drop": ("qdrop", {"drop": "none"}),
    "QDrop": ("qdrop", {}),
    "AQuant": ("aquant", {}),
    "AQuant, drop": ("aquant", {"drop": "qdrop"}),
    "AQuant, free": ("aquant", {"border": _FREE}),
    "AQuant, free, drop": ("aquant", {"border": _FREE, "drop": "qdrop"}),
}
TASKS = ("gabor", "digits")
MOBILE_ROUNDING_WEIGHT = 0.1  # of MobileNetV2, as QDrop and BRECQ publish


@dataclass(frozen=True)
class Case:
    """A net (network, task, seed of its training) and how it is quantized; `changes` go to the recipe."""

    arm: str
    network: str = "N1"
    seed: int = 0
    w_bits: int = 2
    a_bits: int = 2
    iterations: int = 1000
    images: int = 512
    task: str = "gabor"
    changes: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"arm is {self.arm!r}; use one of {', '.join(ARMS)}")
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; use one of {', '.join(TASKS)}")


@dataclass(frozen=True)
class Outcome:
    """What came out: a row, per test image whether it is right, the units' report, the borders."""

    row: dict[str, Any]
    correct: np.ndarray
    units: pd.DataFrame
    borders: list[dict[str, Any]] = field(default_factory=list)


_DONE: dict[Case, Outcome] = {}


def outcomes(cases: Iterable[Case], workers: int) -> dict[Case, Outcome]:
    """Return the outcome of every case; those not known yet run over `workers` processes, on one thread each."""
    wanted = list(dict.fromkeys(cases))
    missing = [case for case in wanted if case not in _DONE]
    # Nets first and alone: two cases of one net would train it twice.
    nets = list(dict.fromkeys(training(case) for case in missing))
    in_processes(_train, nets, workers)
    _DONE.update(zip(missing, in_processes(_run, missing, workers), strict=True))
    return {case: _DONE[case] for case in wanted}


def table(cases: Iterable[Case], workers: int) -> pd.DataFrame:
    """Return one row per case: its settings, top-1 of the float and the quantized network, the recipe's hash."""
    return pd.DataFrame([outcome.row for outcome in outcomes(cases, workers).values()])


def training(case: Case) -> Any:
    """Return the recipe by which a case's net is trained."""
    from paperlab.aquant.data.tasks import DigitsTask, GaborTask
    from paperlab.aquant.data.training import recipe

    task = DigitsTask() if case.task == "digits" else GaborTask()
    return recipe(case.network, task, seed=case.seed)


def _train(recipe: Any) -> None:
    from paperlab.aquant.data.training import trained

    trained(recipe)


def _run(case: Case) -> Outcome:
    from paperlab.aquant.data.training import correct, one_thread, trained
    from paperlab.aquant.frame.quantize import quantize
    from paperlab.aquant.studies.motivation import output_gap

    net = trained(training(case))
    method, settings = ARMS[case.arm]
    settings = {"iterations": case.iterations, **settings, **dict(case.changes)}
    if case.network == "N2":
        settings = {"rounding_weight": MOBILE_ROUNDING_WEIGHT, **settings}
    with one_thread():
        images = net.data.calibration(case.images, seed=case.seed)
        quantized = quantize(net.model, images, method, case.w_bits, case.a_bits, **settings)
        right = correct(quantized, net.data.test).numpy()
        offset, error = output_gap(net, quantized)
    row = {
        "network": case.network, "task": case.task, "net_seed": case.seed, "arm": case.arm,
        "w_bits": case.w_bits, "a_bits": case.a_bits, "iterations": case.iterations, "calibration_images": case.images,
        "float_top1": net.test_accuracy, "top1": 100 * right.mean(),
        "mean_offset": offset, "output_error": error,
        "recipe": content_key(asdict(quantized.recipe))[:12], "net": net.key[:12],
    }  # fmt: skip
    return Outcome(row, right, quantized.report(), _borders(quantized))


def _borders(quantized: Any) -> list[dict[str, Any]]:
    """Return the offset of every channel of every border on a grid of the range."""
    import torch

    from paperlab.aquant.frame.insert import quantizers_of

    found = []
    for name, item in quantizers_of(quantized).items():
        if item.border is None or item.border.spec.fusion != "none" or item.border.positions > 1:
            continue
        u = torch.linspace(item.low.item(), item.high.item(), 61)
        offset = item.border.offset(u[:, None].expand(-1, item.border.channels))
        found += [
            {"quantizer": name.removeprefix("network.quantize_"), "channel": channel, "u": float(a), "offset": float(b)}
            for channel in range(item.border.channels)
            for a, b in zip(u, offset[:, channel], strict=True)
        ]
    return found
