"""A quantized model as files: the integer program with its thresholds, and the model's own state."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from paperlab.aquant.deploy.integer import IntegerNetwork, Step
from paperlab.aquant.deploy.lower import lower
from paperlab.aquant.deploy.thresholds import ThresholdTable, neighbors, table_of
from paperlab.aquant.frame.insert import layers_of, prepare, quantizers_of
from paperlab.aquant.quantizer import ActivationQuantizer
from paperlab.lab.files import write_atomic

if TYPE_CHECKING:
    from paperlab.aquant.frame.quantize import QuantizedModel

_PROGRAM, _STATE = "paperlab-aquant-program-1", "paperlab-aquant-state-1"
_REACH = 64  # float32 values to each side of a threshold in which function and table are compared


def export_thresholds(model: nn.Module, path: Path | str) -> pd.DataFrame:
    """Write a quantized model as an integer program with threshold tables, `.npz`; return the monotonicity report.

    Raises ValueError where a border has no table (`table_of`) or an operation no integer form (`lower`).
    """
    program = lower(model)
    header = {"format": _PROGRAM, "fraction_bits": program.fraction_bits, "steps": [s._asdict() for s in program.steps]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, header=np.array(json.dumps(header)), **program.arrays)
    write_atomic(Path(path), buffer.getvalue())
    return monotonicity(model)


def load_program(path: Path | str) -> IntegerNetwork:
    """Read what `export_thresholds` wrote; it needs numpy alone.

    Raises ValueError for a file of another kind or with arrays missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"program {path}: not readable ({error})") from None
    if header.get("format") != _PROGRAM:
        raise ValueError(f"program {path}: format {header.get('format')!r}; this version reads {_PROGRAM!r}")
    steps = tuple(Step(**{**step, "inputs": tuple(step["inputs"])}) for step in header["steps"])
    missing = {name for step in steps for name in step.arrays.values()} - set(arrays)
    if missing:
        raise ValueError(f"program {path}: array {min(missing)} is missing")
    return IntegerNetwork(steps, arrays, int(header["fraction_bits"]))


def monotonicity(model: nn.Module) -> pd.DataFrame:
    """Return a row per quantizer and channel (or channel and kernel position): is its table a plain staircase?

    Columns: quantizer, row, bits, steps, steps_down, monotone, unreached (codes that no activation gets), zero_level
    (the level of an exact zero), undecided (float32 values next to a threshold, `_REACH` to each side, on which the
    function in float32 flickers by a rounding error, so that it differs from the table).
    """
    frames = [_rows(name, quantizer, table_of(quantizer)) for name, quantizer in quantizers_of(model).items()]
    return pd.concat(frames, ignore_index=True)


def _rows(name: str, quantizer: ActivationQuantizer, table: ThresholdTable) -> pd.DataFrame:
    steps = np.diff(table.codes.astype(int), axis=1)
    zeros = np.zeros((1, len(table.codes)), np.float32)
    return pd.DataFrame(
        {
            "quantizer": name.removeprefix("network."),
            "row": range(len(table.codes)),
            "bits": table.bits,
            "steps": np.isfinite(table.thresholds).sum(1),
            "steps_down": (steps < 0).sum(1),
            "monotone": table.monotone,
            "unreached": [2**table.bits - len(set(row)) for row in _reachable(table)],
            "zero_level": table(zeros)[0].astype(int) - table.zero_point,
            "undecided": _undecided(quantizer, table),
        }
    )


def _reachable(table: ThresholdTable) -> list[list[int]]:
    """Return the codes of each row that some number gets: those between two different thresholds."""
    found = []
    for thresholds, codes in zip(table.thresholds, table.codes, strict=True):
        ends = np.concatenate([[-np.inf], thresholds, [np.inf]])
        wide = ends[1:] > ends[:-1]
        found.append([int(code) for code, reached in zip(codes, wide, strict=True) if reached])
    return found


@torch.no_grad()
def _undecided(quantizer: ActivationQuantizer, table: ThresholdTable) -> np.ndarray:
    near = neighbors(table.thresholds.T, _REACH)
    flat = near.reshape(-1, near.shape[2])
    function = quantizer.codes(torch.from_numpy(flat).to(quantizer.scale.device)).cpu().numpy()
    return (function != table(flat)).reshape(near.shape).sum((0, 1))


def save_state(model: QuantizedModel, path: Path | str) -> None:
    """Write a quantized model as safetensors: codes, scales, borders; recipe and reports as JSON in its header."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
    about = {"recipe": asdict(model.recipe), "reports": [asdict(report) for report in model.reports]}
    write_atomic(Path(path), save(state, {"format": _STATE, "about": json.dumps(about)}))


def load_state(path: Path | str, model: nn.Module, example: Tensor) -> QuantizedModel:
    """Return the quantized model that `save_state` wrote.

    Args:
        path: the file.
        model: the float network it was made from, for its structure; its weights are not used.
        example: a batch of images, for shapes.

    Raises:
        ValueError: another kind of file, or the network's structure is another one; the first difference is named.
    """
    from safetensors import SafetensorError, safe_open

    from paperlab.aquant.frame.quantize import QuantizedModel
    from paperlab.aquant.frame.report import UnitReport

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"state {path}: not readable ({error})") from None
    if header.get("format") != _STATE:
        raise ValueError(f"state {path}: format {header.get('format')!r}; this version reads {_STATE!r}")
    about = json.loads(header["about"])
    recipe = _recipe(about["recipe"])
    network = prepare(model, recipe, example)
    for layer in layers_of(network).values():
        layer.deploy()  # the codes of weights without a grid are placeholders
    _check(path, network.state_dict(), state)
    network.load_state_dict(state)
    return QuantizedModel(network, recipe, [UnitReport(**report) for report in about["reports"]]).eval()


def _recipe(values: dict[str, Any]) -> Any:
    from paperlab.aquant.border import BorderSpec
    from paperlab.aquant.frame.recipe import Recipe

    border = values.pop("border")
    return Recipe(**values, border=None if border is None else BorderSpec(**border))


def _check(path: Path | str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name in sorted(set(wanted) | set(found)):
        if name not in found:
            raise ValueError(f"state {path}: lacks {name} of the network; give the network it was made from")
        if name not in wanted:
            raise ValueError(f"state {path}: {name} is not part of the network; give the network it was made from")
        if wanted[name].shape != found[name].shape:
            shapes = f"{list(found[name].shape)}, the network's {list(wanted[name].shape)}"
            raise ValueError(f"state {path}: {name} has shape {shapes}; give the network it was made from")
