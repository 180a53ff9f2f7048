"""The Angle-View Net's size, shapes and inputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.network.avn import AngleViewNet, build, parameters
from paperlab.rgbd_grasp.network.config import FULL, MODALITIES, SMALL, TINY, AvnConfig
from paperlab.rgbd_grasp.network.encoder import SqueezeExcite
from paperlab.rgbd_grasp.network.inputs import (
    as_images,
    depth_image,
    filled,
    normal_image,
    normalized,
    resized_depth,
    surface_normals,
)

CAMERA = Camera(150.0, 150.0, 63.5, 47.5, 128, 96)


def on_meta(config):
    with torch.device("meta"):
        return AngleViewNet(config)


def test_full_net_has_the_papers_parameters_stage_by_stage():
    encoder, shuffle, first, second, head = on_meta(FULL).streams[0]
    counts = [parameters(part) / 1e6 for part in (encoder, shuffle, first, second, head)]
    assert counts == pytest.approx([34.66, 0, 9.44, 9.44, 1.66], abs=0.005)
    assert sum(counts) == pytest.approx(55.20, abs=0.01)
    # ResNet-50 without its classifier has 23.508 M; the gates are two square layers per stage.
    gates = sum(2 * (c * c + c) for c in (256, 512, 1024, 2048))
    assert parameters(encoder) == 23_508_032 + gates


def test_full_net_has_the_papers_shapes_stage_by_stage():
    net = on_meta(FULL).to_empty(device="cpu").eval()
    for tensor in net.state_dict().values():
        tensor.zero_()
    shapes = []
    for part in [*net.streams[0][0], *net.streams[0][1:]]:
        part.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        net(torch.zeros(1, 3, 288, 384))
    assert shapes == [
        (1, 64, 72, 96), (1, 256, 72, 96), (1, 512, 36, 48), (1, 1024, 18, 24), (1, 2048, 9, 12),
        (1, 512, 18, 24), (1, 512, 36, 48), (1, 512, 72, 96), (1, 360, 72, 96),
    ]  # fmt: skip


def test_every_stage_of_the_full_net_gates_its_first_block_only():
    for stage in on_meta(FULL).streams[0][0][1:]:
        gated = [any(isinstance(m, SqueezeExcite) for m in block.modules()) for block in stage]
        assert gated == [True] + [False] * (len(gated) - 1)


@pytest.mark.parametrize("config", [SMALL, TINY], ids=["small", "tiny"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_output_has_a_logit_per_class_and_cell(config, modality):
    net = build(replace(config, modality=modality)).eval()
    with torch.no_grad():
        out = net(torch.rand(1, 6 if modality == "rgb_normals" else 3, config.image[1], config.image[0]))
    assert out.shape == (1, config.classes, config.grid.rows, config.grid.columns)
    assert (out < 0).any()
    assert not any(isinstance(m, nn.Sigmoid) for part in net.streams for m in part[1:].modules())


def test_two_streams_are_two_whole_ones_and_a_convolution():
    one, two = parameters(on_meta(FULL)), parameters(on_meta(replace(FULL, modality="rgb_normals")))
    assert two == 2 * one + 720 * 360 * 9 + 360


def test_small_net_is_small():
    assert parameters(on_meta(SMALL)) == pytest.approx(3.33e6, rel=0.01)
    assert (SMALL.grid.columns, SMALL.grid.rows, SMALL.classes) == (64, 48, 360)
    assert (TINY.grid.columns, TINY.grid.rows, TINY.classes) == (32, 24, 48)


@pytest.mark.parametrize("config", [TINY, replace(TINY, block="bottleneck", head="3x3", modality="rgb_normals")])
def test_gradients_reach_every_parameter(config):
    net = build(config)
    x = torch.rand(2, 6 if config.modality == "rgb_normals" else 3, 96, 128)
    net(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = build(TINY, 1), build(TINY, 1), build(TINY, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.last.weight, other.last.weight)


@pytest.mark.parametrize("modality", ["rgb", "rgb_normals"])
def test_prior_bias_gives_each_class_its_prior_at_the_start(modality):
    net = build(replace(TINY, modality=modality))
    prior = torch.rand(TINY.classes, dtype=torch.float64) * 0.01 + 1e-4
    net.start_at(prior)
    with torch.no_grad():
        said = net(torch.rand(4, 6 if modality == "rgb_normals" else 3, 96, 128)).sigmoid().mean(dim=(0, 2, 3))
    torch.testing.assert_close(said.double(), prior, rtol=0.25, atol=0)
    assert float(said.sum()) == pytest.approx(float(prior.sum()), rel=0.05)


@pytest.mark.parametrize("prior", [torch.zeros(TINY.classes), torch.full((3,), 0.1)])
def test_bad_priors_are_told(prior):
    with pytest.raises(ValueError, match="prior: needs 48 shares between 0 and 1"):
        build(TINY).start_at(prior)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (192, 144)}, r"image: got \(192, 144\), needs a width and a height that are multiples of 32"),
        ({"modality": "thermal"}, "modality: got 'thermal', needs one of rgb, normals, rgb_normals, depth"),
        ({"head": "5x5"}, "head"),
        ({"views": 0}, "positive numbers"),
    ],
)
def test_bad_configurations_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        AvnConfig(**change)


def test_wrong_input_is_told():
    with pytest.raises(
        ValueError, match=r"image: got shape \(1, 3, 96, 96\), needs \(B, 3, 96, 128\) for modality rgb"
    ):
        build(TINY)(torch.zeros(1, 3, 96, 96))


def test_normals_of_planes_are_exact_and_edges_do_not_bleed():
    rays = CAMERA.cloud(np.ones((96, 128)))
    normal = np.array([0.3, -0.2, -0.93])
    normal /= np.linalg.norm(normal)
    depth = -0.5 / (rays @ normal)
    np.testing.assert_allclose(surface_normals(depth, CAMERA), np.broadcast_to(normal, (96, 128, 3)), atol=1e-6)
    step = np.where(np.arange(128) < 60, 0.5, 0.4) * np.ones((96, 1))
    np.testing.assert_allclose(surface_normals(step, CAMERA)[..., 2], -1.0, atol=1e-6)
    image = normal_image(step, CAMERA, (64, 32))
    assert (image[..., 2] == 0).all()
    assert np.isin(image[..., :2], (127, 128)).all()


def test_depth_becomes_its_range_and_holes_their_neighbors():
    depth = np.full((96, 128), 0.6)
    depth[40:60, 40:60] = 0.4
    depth[10:20, 10:20] = 0.0
    image = depth_image(depth, (128, 96))
    assert set(np.unique(image)) == {0, 65535}
    assert (image[10:20, 10:20] == 65535).all()
    assert filled(np.array([[0.0, 0.5, 0.7, 0.0]])).tolist() == [[0.5, 0.5, 0.7, 0.7]]
    assert (depth_image(np.full((96, 128), 0.5), (64, 32)) == 0).all()
    with pytest.raises(ValueError, match="depth_m: is empty"):
        filled(np.zeros((4, 4)))


def test_resized_depth_invents_no_depth():
    depth = np.random.default_rng(0).choice([0.0, 0.4, 0.6], (90, 120))
    assert set(np.unique(resized_depth(depth, (32, 64)))) == {0.0, 0.4, 0.6}
    assert np.array_equal(resized_depth(depth, (120, 90)), depth)
    assert np.array_equal(resized_depth(np.repeat(np.repeat(depth, 3, 0), 3, 1), (120, 90)), depth)


def test_one_channel_becomes_three_and_color_is_normalized():
    depth = as_images(np.array([[[0, 65535]]], dtype=np.uint16))
    assert depth.shape == (1, 3, 1, 2)
    assert torch.equal(normalized(depth, "depth"), depth)
    color = as_images(np.full((1, 1, 1, 3), 255, dtype=np.uint8))
    both = normalized(torch.cat([color, color], dim=1), "rgb_normals")[0, :, 0, 0]
    assert both[:3].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert both[3:].tolist() == [1, 1, 1]
