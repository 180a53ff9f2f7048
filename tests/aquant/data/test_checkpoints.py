"""Each published layout, written down here anew from its own architecture, loads; what does not fit is told."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paperlab.aquant.data.checkpoints import load_checkpoint
from paperlab.aquant.networks import NETWORKS, build

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name):
    return [f"{name}.{part}" for part in BN]


def conv(name):
    return [f"{name}.weight"]


def linear(name):
    return [f"{name}.weight", f"{name}.bias"]


def timm_mobile(depths):
    """conv_stem, bn1, blocks.STAGE.BLOCK, conv_head, bn2, classifier."""
    names = conv("conv_stem") + norm("bn1")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            parts = ("conv_pw", "conv_dw", "conv_pwl") if stage else ("conv_dw", "conv_pw")
            for number, part in enumerate(parts, 1):
                names += conv(f"blocks.{stage}.{block}.{part}") + norm(f"blocks.{stage}.{block}.bn{number}")
    return names + conv("conv_head") + norm("bn2") + linear("classifier")


def torchvision_mobilenet():
    names = conv("features.0.0") + norm("features.0.1")
    for block in range(1, 18):
        path = f"features.{block}.conv"
        pairs = 1 if block == 1 else 2
        for pair in range(pairs):
            names += conv(f"{path}.{pair}.0") + norm(f"{path}.{pair}.1")
        names += conv(f"{path}.{pairs}") + norm(f"{path}.{pairs + 1}")
    return names + conv("features.18.0") + norm("features.18.1") + linear("classifier.1")


def torchvision_regnet(depths):
    names = conv("stem.0") + norm("stem.1")
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            path = f"trunk_output.block{stage}.block{stage}-{block}"
            for part in (["proj"] if block == 0 else []) + ["f.a", "f.b", "f.c"]:
                names += conv(f"{path}.{part}.0") + norm(f"{path}.{part}.1")
    return names + linear("fc")


def timm_regnet(depths):
    """timm defines the shortcut last, BRECQ's and ours first."""
    names = conv("stem.conv") + norm("stem.bn")
    for stage, depth in enumerate(depths, 1):
        for block in range(1, depth + 1):
            parts = (["downsample"] if block == 1 else []) + ["conv1", "conv2", "conv3"]
            for part in parts:
                names += conv(f"s{stage}.b{block}.{part}.conv") + norm(f"s{stage}.b{block}.{part}.bn")
    return names + linear("head.fc")


LAYOUTS = {
    ("MobileNetV2", "torchvision"): torchvision_mobilenet(),
    ("MobileNetV2", "timm"): timm_mobile((1, 2, 3, 4, 3, 3, 1)),
    ("MNasNet", "timm"): timm_mobile((1, 3, 3, 3, 2, 4, 1)),
    ("RegNetX-600M", "torchvision"): torchvision_regnet((1, 3, 5, 7)),
    ("RegNetX-3.2G", "timm"): timm_regnet((2, 6, 15, 2)),
}


def random_state(name):
    """A state whose every entry is recognizable."""
    state = empty(name).state_dict()
    return {key: torch.full_like(value, number) for number, (key, value) in enumerate(state.items())}


def empty(name):
    """The network without the time that drawing its weights takes."""
    with torch.device("meta"):
        return build(name, 10).to_empty(device="cpu")


def is_filled_with(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_layout_becomes_ours_tensor_by_tensor(name, layout, tmp_path):
    """Both orders of definition agree, so the names written down here pair with ours in order."""
    state = random_state(name)
    theirs = dict(zip(LAYOUTS[name, layout], state.values(), strict=True))
    path = tmp_path / "weights of a network.pth"
    torch.save(theirs, path)
    model = empty(name)
    assert load_checkpoint(model, path) == layout
    assert is_filled_with(model, state)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["plain", "wrapped", "safetensors"])
def test_our_own_names_are_the_quantization_papers(name, form, tmp_path):
    state = random_state(name)
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "weights.pth.tar"
        wrapped = {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
        torch.save(state if form == "plain" else wrapped, path)
    model = empty(name)
    assert load_checkpoint(model, path) in ("BRECQ", "common")
    assert is_filled_with(model, state)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet-18", {"conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias", "fc.weight"}),
        ("ResNet-50", {"layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.weight"}),
        ("MobileNetV2", {"features.1.conv.4.weight", "features.17.conv.7.bias", "features.18.0.weight"}),
        ("RegNetX-600M", {"stem.conv.weight", "s1.b1.proj.weight", "s1.b1.bn.bias", "s4.b7.f.c_bn.weight"}),
        ("MNasNet", {"layers.7.running_mean", "layers.12.3.layers.6.weight", "layers.14.weight", "classifier.1.bias"}),
    ],
)
def test_names_of_the_published_files(name, expected):
    assert expected <= set(empty(name).state_dict())


def test_checkpoints_without_batch_counters_load(tmp_path):
    state = {key: value for key, value in random_state("ResNet-18").items() if not key.endswith("tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert load_checkpoint(empty("ResNet-18"), tmp_path / "old.pth") == "common"


def fails(tmp_path, content, message, name="MobileNetV2"):
    path = tmp_path / "bad.pth"
    torch.save(content, path)
    model = empty(name)
    model.load_state_dict(random_state(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model, path)
    assert is_filled_with(model, before)


def test_what_does_not_fit_is_told_and_changes_nothing(tmp_path):
    good = random_state("MobileNetV2")
    missing = {key: value for key, value in good.items() if key != "features.2.conv.3.weight"}
    fails(
        tmp_path, missing, r"1 tensors do not fit MobileNetV2 in the BRECQ layout.*features\.2\.conv\.3\.weight is miss"
    )
    fails(tmp_path, good | {"ema.weight": torch.ones(1)}, r"ema\.weight is not part of the network")
    other = good | {"classifier.1.bias": torch.ones(1000)}
    fails(tmp_path, other, r"classifier\.1\.bias has shape \[1000\], the network wants \[10\]")
    fails(tmp_path, random_state("ResNet-18"), r"the closest of BRECQ, torchvision, timm")
    renamed = dict(zip(timm_mobile((1, 2, 3, 4, 3, 3, 1)), good.values(), strict=True))
    del renamed["blocks.3.1.conv_dw.weight"]
    fails(tmp_path, renamed, r"in the timm layout.*features\.8\.conv\.3\.weight is missing")
    fails(tmp_path, [torch.ones(1)], "is no mapping from names to tensors")
    fails(tmp_path, {"epoch": 3}, "is no mapping from names to tensors")


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"model": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.pth: holds more than tensors"):
        load_checkpoint(nn.Module(), path)
    buffer = io.BytesIO()
    pickle.dump(Evil(), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"checkpoint .*evil\.pth"):
        load_checkpoint(nn.Module(), path)
    assert "unpickled" not in capsys.readouterr().out


def test_unreadable_files_are_told(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(nn.Module(), tmp_path / "absent.pth")
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(ValueError, match=f"checkpoint .*{name}: "):
            load_checkpoint(nn.Module(), tmp_path / name)
