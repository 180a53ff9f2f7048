"""Published checkpoints of the six networks: BRECQ's, torchvision's and timm's names become those of our definitions.

BRECQ's zoo names its tensors as `paperlab.aquant.networks` does; torchvision's ResNets and MNasNets and timm's ResNets
agree with it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Rename = Callable[[str], str]
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_MOBILENET_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
# Where timm's names stand in a path of convolution, normalization, activation; by whether the block expands.
_EXPANDING = {"conv_pw": 0, "bn1": 1, "conv_dw": 3, "bn2": 4, "conv_pwl": 6, "bn3": 7}
_PLAIN = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}


def load_checkpoint(model: nn.Module, path: Path | str) -> str:
    """Fill `model` from a file of safetensors or of torch.save, in whichever known layout fits; return the layout.

    Only tensors are unpickled. A mapping may be wrapped in "state_dict" or "model" and its names in "module.".

    Raises:
        ValueError: an unreadable file, or tensors that are missing, left over or of another shape in every layout; one
            line that names the first of each for the closest layout.
    """
    path = Path(path)
    tensors = _read(path)
    attempts = {layout: {rename(name): t for name, t in tensors.items()} for layout, rename in _layouts(model)}
    faults = {layout: list(_faults(model, found)) for layout, found in attempts.items()}
    layout = min(faults, key=lambda name: len(faults[name]))
    if faults[layout]:
        shown = "; ".join(faults[layout][:3])
        raise ValueError(
            f"checkpoint {path}: {len(faults[layout])} tensors do not fit {type(model).__name__} in the {layout} "
            f"layout, the closest of {', '.join(faults)}: {shown}"
        )
    # counters of seen batches, which evaluation does not use, are missing from older checkpoints
    model.load_state_dict(attempts[layout], strict=False)
    return layout


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"checkpoint {path}: not readable ({_first_line(error)})") from None
    except Exception as error:  # whatever the restricted unpickler refuses
        raise ValueError(f"checkpoint {path}: holds more than tensors ({_first_line(error)})") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"checkpoint {path}: is no mapping from names to tensors, nor wraps one in {_WRAPPERS[0]!r}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _faults(model: nn.Module, found: Mapping[str, Tensor]) -> Iterator[str]:
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in found:
            if not name.endswith("num_batches_tracked"):
                yield f"{name} is missing"
        elif found[name].shape != tensor.shape:
            yield f"{name} has shape {list(found[name].shape)}, the network wants {list(tensor.shape)}"
    for name in found:
        if name not in wanted:
            yield f"{name} is not part of the network"


def _layouts(model: nn.Module) -> list[tuple[str, Rename]]:
    """Return the layouts in which a network of this class is published, with what turns their names into ours."""
    others: dict[str, list[tuple[str, Rename]]] = {
        "ResNet": [],
        "MobileNetV2": [("torchvision", _torchvision_mobilenet), ("timm", _timm_mobilenet)],
        "MNasNet": [("timm", _timm_mnasnet)],
        "RegNetX": [("torchvision", _torchvision_regnet), ("timm", _timm_regnet)],
    }
    shared = "BRECQ" if others.get(type(model).__name__) else "common"
    return [(shared, lambda name: name), *others.get(type(model).__name__, [])]


def _torchvision_mobilenet(name: str) -> str:
    nested = re.match(r"features\.(\d+)\.conv\.(\d)\.(\d)\.(.*)", name)
    if nested:
        block, triple, part, rest = nested.groups()
        return f"features.{block}.conv.{3 * int(triple) + int(part)}.{rest}"
    last = re.match(r"features\.(\d+)\.conv\.(\d)\.(.*)", name)
    if last:
        block, place, rest = last.groups()
        triples = 1 if block == "1" else 2  # the first block does not expand
        return f"features.{block}.conv.{2 * triples + int(place)}.{rest}"
    return name


def _timm_mobilenet(name: str) -> str:
    match = re.match(r"blocks\.(\d)\.(\d)\.(\w+)\.(.*)", name)
    if match:
        stage, block = int(match[1]), int(match[2])
        places = _EXPANDING if stage else _PLAIN
        if stage < len(_MOBILENET_DEPTHS) and match[3] in places:
            feature = 1 + sum(_MOBILENET_DEPTHS[:stage]) + block
            return f"features.{feature}.conv.{places[match[3]]}.{match[4]}"
    last = 1 + sum(_MOBILENET_DEPTHS)
    return _ends(name, "features.0.0", "features.0.1", f"features.{last}.0", f"features.{last}.1")


def _timm_mnasnet(name: str) -> str:
    match = re.match(r"blocks\.(\d)\.(\d)\.(\w+)\.(.*)", name)
    if match:
        stage, block = int(match[1]), int(match[2])
        if stage == 0 and match[3] in _PLAIN:
            return f"layers.{3 + _PLAIN[match[3]]}.{match[4]}"
        if stage and match[3] in _EXPANDING:
            return f"layers.{7 + stage}.{block}.layers.{_EXPANDING[match[3]]}.{match[4]}"
    return _ends(name, "layers.0", "layers.1", "layers.14", "layers.15")


def _ends(name: str, stem: str, stem_norm: str, head: str, head_norm: str) -> str:
    """Rename stem, head and classifier as timm calls them in its mobile networks."""
    part, _, rest = name.partition(".")
    targets = {"conv_stem": stem, "bn1": stem_norm, "conv_head": head, "bn2": head_norm, "classifier": "classifier.1"}
    return f"{targets[part]}.{rest}" if part in targets else name


def _torchvision_regnet(name: str) -> str:
    name = re.sub(r"^stem\.0\.", "stem.conv.", name)
    name = re.sub(r"^stem\.1\.", "stem.bn.", name)
    name = re.sub(r"^fc\.", "head.fc.", name)
    name = re.sub(r"^trunk_output\.block(\d)\.block\d-(\d+)\.", lambda m: f"s{m[1]}.b{int(m[2]) + 1}.", name)
    name = re.sub(r"\.proj\.0\.", ".proj.", name)
    name = re.sub(r"\.proj\.1\.", ".bn.", name)
    name = re.sub(r"\.f\.([abc])\.0\.", r".f.\1.", name)
    return re.sub(r"\.f\.([abc])\.1\.", r".f.\1_bn.", name)


def _timm_regnet(name: str) -> str:
    name = name.replace(".downsample.conv.", ".proj.").replace(".downsample.bn.", ".bn.")
    name = re.sub(r"\.conv([123])\.conv\.", lambda m: f".f.{'abc'[int(m[1]) - 1]}.", name)
    return re.sub(r"\.conv([123])\.bn\.", lambda m: f".f.{'abc'[int(m[1]) - 1]}_bn.", name)
