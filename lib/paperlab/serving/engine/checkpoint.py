"""Weights for a `Decoder`: a user's Hugging Face folder (config.json and safetensors), or random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paperlab.transformer import ModelShape, from_hf_config
from paperlab.transformer.model import Decoder

_FAMILIES = ("llama", "qwen2", "qwen3")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A folder's shape, tokens that end a text, and where each tensor lies."""

    folder: Path
    shape: ModelShape
    stop_tokens: tuple[int, ...]
    files: Mapping[str, Path]  # by tensor name


def random_decoder(shape: ModelShape, dtype: torch.dtype, device: torch.device, seed: int) -> Decoder:
    """Return a decoder of `shape` with normally distributed weights by `seed`."""
    with torch.device("meta"):
        decoder = Decoder(shape).to(dtype)
    return decoder.to_empty(device=device).initialize(seed).requires_grad_(False).eval()


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder's config and the names of its tensors, and compare them with what the model needs.

    Raises:
        ValueError: no folder, no or a malformed config, an unsupported model, no safetensors, a missing shard, a
            missing or surplus tensor; one line that names it.
    """
    if not folder.is_dir():
        raise ValueError(f"checkpoint {folder}: no such folder")
    config = _read_json(folder / "config.json")
    shape = _shape(folder, config)
    files = _tensor_files(folder)
    _compare_names(folder, shape, files)
    generation = folder / "generation_config.json"
    stops = (_read_json(generation) if generation.is_file() else {}).get("eos_token_id", config.get("eos_token_id"))
    stops = stops if isinstance(stops, list) else [stops]
    return Checkpoint(folder, shape, tuple(token for token in stops if token is not None), files)


def load_decoder(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Decoder:
    """Return the decoder with the checkpoint's weights; ValueError for a tensor of another shape than the config's."""
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        decoder = Decoder(checkpoint.shape)
    wanted = _parameters(decoder)
    state: dict[str, Tensor] = {}
    for path in sorted(set(checkpoint.files.values())):
        try:
            with safe_open(path, framework="pt") as file:
                for name in sorted(set(file.keys()) & set(wanted)):
                    state[name] = _checked(path, name, file.get_tensor(name), wanted[name]).to(device, dtype)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    if left := sorted(set(wanted) - set(state)):
        raise ValueError(f"checkpoint {checkpoint.folder}: the index promises tensor {left[0]}, its shard lacks it")
    decoder.load_state_dict({name.removeprefix("model."): weight for name, weight in state.items()}, assign=True)
    return decoder.requires_grad_(False).eval()


def _parameters(decoder: Decoder) -> dict[str, nn.Parameter]:
    """Return the decoder's parameters by their names in a checkpoint."""
    named = decoder.named_parameters()
    return {name if name.startswith("lm_head") else f"model.{name}": parameter for name, parameter in named}


def _shape(folder: Path, config: dict[str, Any]) -> ModelShape:
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(f"{folder / 'config.json'}: model_type is {family!r}; supported: {', '.join(_FAMILIES)}")
    from transformers import AutoConfig

    values = {key: value for key, value in config.items() if key != "model_type"}
    try:  # a config class knows the older spellings of its fields
        shape = from_hf_config(AutoConfig.for_model(family, **values))
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'}: {' '.join(str(error).split())}") from None
    return replace(shape, name=folder.name)


def _tensor_files(folder: Path) -> dict[str, Path]:
    from safetensors import SafetensorError, safe_open

    if (folder / _INDEX).is_file():
        mapping = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(mapping, dict) or not all(isinstance(shard, str) for shard in mapping.values()):
            raise ValueError(f"{folder / _INDEX}: weight_map is missing or not a map from tensors to files")
        for shard in sorted(set(mapping.values())):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise ValueError(f"checkpoint {folder}: shard {shard} is missing")
        return {name: folder / shard for name, shard in mapping.items()}
    path = folder / _SINGLE
    if not path.is_file():
        raise ValueError(f"checkpoint {folder}: neither {_SINGLE} nor {_INDEX} is there; only safetensors are read")
    try:
        with safe_open(path, framework="pt") as file:
            return dict.fromkeys(file.keys(), path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def _compare_names(folder: Path, shape: ModelShape, files: Mapping[str, Path]) -> None:
    try:
        with torch.device("meta"):
            needed = set(_parameters(Decoder(shape)))
    except ValueError as error:
        raise ValueError(f"checkpoint {folder}: {error}") from None
    # A tied head may be stored all the same; older Llama checkpoints carry their rotary frequencies.
    surplus = {name for name in set(files) - needed if not name.endswith("rotary_emb.inv_freq")}
    if shape.tied_embeddings:
        surplus.discard("lm_head.weight")
    for what, names in (("missing", needed - set(files)), ("not part of the model", surplus)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"checkpoint {folder}: tensor {min(names)} is {what}{more}")


def _checked(path: Path, name: str, found: Tensor, wanted: Tensor) -> Tensor:
    if found.shape != wanted.shape:
        raise ValueError(f"{path}: {name} has shape {list(found.shape)}; config.json asks for {list(wanted.shape)}")
    if not found.is_floating_point():
        raise ValueError(f"{path}: {name} is {found.dtype}; only floating-point weights are read")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"checkpoint {path.parent}: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; it must be an object")
    return content
