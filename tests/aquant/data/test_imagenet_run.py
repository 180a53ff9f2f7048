"""The whole ImageNet path on a fake tree: folder, checkpoint, calibration, quantization, accuracy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from paperlab.aquant.data.imagenet import VARIABLE
from paperlab.aquant.data.imagenet_run import main
from paperlab.aquant.networks import build


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Two classes of noisy pictures, and a network's weights with the names of a published file."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for name in ("n01440764", "n01443537"):
            folder = tmp_path / "image net" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    torch.manual_seed(0)
    model = build("N1", 2).train()
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32))
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "a.pth.tar")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "image net"))
    return [
        "--checkpoint", str(tmp_path / "a.pth.tar"), "--network", "N1", "--size", "32", "--calibration", "32",
        "--iterations", "2", "--out", str(tmp_path / "out"),
    ]  # fmt: skip


def test_it_runs_and_goes_on_where_it_stopped(arguments, tmp_path, capsys, monkeypatch):
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "float_top1" in first
    chosen = json.loads((tmp_path / "out" / "N1-aquant-w2a2-calibration.json").read_text())
    assert len(set(chosen)) == 32
    monkeypatch.setattr("paperlab.aquant.frame.sweep.learn", None)  # every unit is there already
    assert main(arguments) == 0
    assert capsys.readouterr().out == first


def test_what_does_not_fit_is_one_line(arguments, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main([*arguments, "--network", "N2"])
    assert "tensors do not fit MobileNetV2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--root", str(tmp_path / "image net" / "val")])
    assert "no train/ in it" in capsys.readouterr().err
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(SystemExit):
        main(arguments)
    assert "give --root or set AQUANT_IMAGENET" in capsys.readouterr().err
