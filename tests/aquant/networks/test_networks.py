"""The definitions against published counts and against independent implementations with the same weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from paperlab.aquant.networks import NETWORKS, SMALL, build, layers, macs, parameters
from paperlab.aquant.networks.blocks import BasicBlock, Bottleneck
from paperlab.aquant.networks.families import MNasNet, MobileNetV2, RegNetX, ResNet, regnet_stages

# torchvision's documentation of its weights: parameters and GFLOPS (multiply-accumulates); timm's for RegNetX-600M,
# whose 0.60 GMAC is the design target of its paper.
PUBLISHED = {
    "ResNet-18": (11_689_512, 1.81),
    "ResNet-50": (25_557_032, 4.09),
    "MobileNetV2": (3_504_872, 0.30),
    "RegNetX-600M": (6_196_040, 0.60),
    "RegNetX-3.2G": (15_296_552, 3.18),
}
MNASNET = {0.5: (2_218_512, 0.10), 0.75: (3_170_208, 0.21), 1.0: (4_383_312, 0.31), 1.3: (6_282_256, 0.53)}


def on_meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    model = on_meta(lambda: build(name))
    count, gmac = PUBLISHED[name]
    assert parameters(model) == count
    assert round(macs(model) / 1e9, 2) == gmac


@pytest.mark.parametrize("scale", MNASNET)
def test_mnasnet_at_the_published_scales(scale):
    model = on_meta(lambda: MNasNet(1000, scale))
    count, gmac = MNASNET[scale]
    assert parameters(model) == count
    assert macs(model) / 1e9 == pytest.approx(gmac, abs=0.011)  # published truncated rather than rounded


def test_regnet_stages_are_those_of_the_paper():
    """Radosavovic et al. 2020, Table 5 and the published model files."""
    assert regnet_stages(48, 36.97, 2.24, 16, 24) == ((1, 48), (3, 96), (5, 240), (7, 528))
    assert regnet_stages(88, 26.31, 2.25, 25, 48) == ((2, 96), (6, 192), (15, 432), (2, 1008))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_run_and_are_traced(name):
    model = build(name, 20).eval()
    x = torch.randn(2, 3, 16, 16)
    assert model(x).shape == (2, 20)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))
    assert parameters(model) < 50_000


@pytest.mark.parametrize("name", NETWORKS)
def test_full_networks_are_traced(name):
    model = on_meta(lambda: build(name, 7)).eval()
    traced = torch.fx.symbolic_trace(model)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    activations = [target for target in targets if isinstance(model.get_submodule(target), nn.ReLU | nn.ReLU6)]
    assert len(activations) == len(set(activations))
    assert traced(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 7)


def test_layers_tell_who_reads_the_same_tensor():
    found = {layer.name: layer for layer in layers(build("N1", 5), (3, 16, 16))}
    assert found["layer2.0.conv1"].input_key == found["layer2.0.downsample.0"].input_key
    assert found["layer2.0.conv1"].input_key != found["layer2.0.conv2"].input_key
    stem = found["conv1"]
    assert (stem.input_elements, stem.patch_elements, stem.macs) == (3 * 256, 27 * 256, 27 * 256 * 8)
    strided = found["layer2.0.conv1"]
    assert (strided.input_elements, strided.patch_elements) == (8 * 256, 8 * 9 * 64)
    depthwise = {layer.name: layer for layer in layers(build("N2", 5), (3, 16, 16))}["features.1.conv.3"]
    assert (depthwise.groups, depthwise.inputs, depthwise.macs) == (48, 48, 48 * 9 * 256)
    assert depthwise.patch_elements == depthwise.macs


def test_unknown_names_and_classes_are_told():
    with pytest.raises(ValueError, match="network: 'VGG' is unknown; use one of ResNet-18, "):
        build("VGG")
    with pytest.raises(ValueError, match="classes: 1 is too few"):
        build("N1", 1)


def copied(ours: nn.Module, theirs: nn.Module, rules: list[tuple[str, str]]) -> None:
    """Give `ours` random statistics and copy them to `theirs`, whose keys follow from `rules`."""
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
    renamed = {}
    for key, value in ours.state_dict().items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    theirs.load_state_dict(renamed)
    ours.eval()
    theirs.eval()


def agree(ours: nn.Module, theirs: nn.Module) -> None:
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = theirs(x).logits, ours(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


NORM = (r"\b(bn)\d?\b", "normalization")


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_equals_hugging_faces(kind):
    from transformers import ResNetConfig, ResNetForImageClassification

    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[kind]
    widths = [8 * block.expansion << stage for stage in range(3)]
    config = ResNetConfig(embedding_size=8, hidden_sizes=widths, depths=[2, 1, 2], layer_type=kind, num_labels=5)
    rules = [
        (r"^conv1", "resnet.embedder.embedder.convolution"),
        (r"^bn1", "resnet.embedder.embedder.normalization"),
        (r"^fc", "classifier.1"),
        (r"downsample\.0", "shortcut.convolution"),
        (r"downsample\.1", "shortcut.normalization"),
        (r"conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution"),
        (r"bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization"),
        (r"^layer(\d)\.(\d)", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}"),
    ]
    ours, theirs = ResNet(block, (2, 1, 2), 5, width=8), ResNetForImageClassification(config)
    copied(ours, theirs, rules)
    agree(ours, theirs)


def test_regnet_equals_hugging_faces():
    from transformers import RegNetConfig, RegNetForImageClassification

    stages = ((1, 16), (2, 32), (1, 48))
    config = RegNetConfig(
        embedding_size=32, hidden_sizes=[16, 32, 48], depths=[1, 2, 1], groups_width=8, layer_type="x", num_labels=5
    )
    rules = [
        (r"^stem\.conv", "regnet.embedder.embedder.convolution"),
        (r"^stem\.bn", "regnet.embedder.embedder.normalization"),
        (r"^head\.fc", "classifier.1"),
        (r"\.proj", ".shortcut.convolution"),
        (r"(b\d)\.bn", r"\1.shortcut.normalization"),
        (r"\.f\.([abc])_bn", lambda m: f".layer.{'abc'.index(m[1])}.normalization"),
        (r"\.f\.([abc])", lambda m: f".layer.{'abc'.index(m[1])}.convolution"),
        (r"^s(\d)\.b(\d)", lambda m: f"regnet.encoder.stages.{int(m[1]) - 1}.layers.{int(m[2]) - 1}"),
    ]
    ours, theirs = RegNetX(stages, 8, 5), RegNetForImageClassification(config)
    copied(ours, theirs, rules)
    agree(ours, theirs)


def test_mobilenet_equals_hugging_faces():
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, num_labels=5, finegrained_output=True)
    names = {1: ["conv_3x3", "reduce_1x1"], 6: ["expand_1x1", "conv_3x3", "reduce_1x1"]}

    def inside(match):
        index, place = int(match[1]), int(match[2])
        kind = {0: "convolution", 1: "normalization"}[place % 3]
        if index == 1:
            return f"mobilenet_v2.conv_stem.{names[1][place // 3]}.{kind}"
        return f"mobilenet_v2.layer.{index - 2}.{names[6][place // 3]}.{kind}"

    rules = [
        (r"^classifier\.1", "classifier"),
        (r"^features\.(\d+)\.conv\.(\d)", inside),
        (r"^features\.0\.0", "mobilenet_v2.conv_stem.first_conv.convolution"),
        (r"^features\.0\.1", "mobilenet_v2.conv_stem.first_conv.normalization"),
        (r"^features\.18\.0", "mobilenet_v2.conv_1x1.convolution"),
        (r"^features\.18\.1", "mobilenet_v2.conv_1x1.normalization"),
    ]
    ours, theirs = MobileNetV2(5), MobileNetV2ForImageClassification(config)
    copied(ours, theirs, rules)
    agree(ours, theirs)
