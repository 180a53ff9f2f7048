"""A published checkpoint, quantized on a user's ImageNet folder and judged on its validation pictures.

    python -m paperlab.aquant.data.imagenet_run --root FOLDER --network ResNet-18 --checkpoint resnet18.pth.tar

Nothing is downloaded; where the folder is not given, the variable AQUANT_IMAGENET names it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from paperlab.aquant import networks
from paperlab.aquant.data.checkpoints import load_checkpoint
from paperlab.aquant.data.imagenet import VARIABLE, open_folder, top1
from paperlab.aquant.frame.quantize import quantize
from paperlab.aquant.frame.recipe import METHODS
from paperlab.lab import timing
from paperlab.lab.files import write_json


@dataclass(frozen=True)
class ImageNetRun:
    """One cell of the ImageNet table; images, augmentation and seed are those of the published codes.

    `every` thins out the validation pictures, `settings` are further fields of `Recipe`.
    """

    root: Path
    checkpoint: Path
    network: str = "ResNet-18"
    method: str = "aquant"
    w_bits: int = 2
    a_bits: int = 2
    calibration: int = 1024
    seed: int = 1005
    size: int = 224
    every: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


def run(plan: ImageNetRun, out: Path, device: str | None = None) -> pd.DataFrame:
    """Quantize and judge; keep the chosen calibration pictures and the learned units in `out`, where a rerun goes on.

    Raises ValueError for a folder, checkpoint or setting that does not fit, before anything is computed.
    """
    device = device or timing.default_device()
    folder = open_folder(plan.root)
    model = networks.build(plan.network, len(folder.classes))
    layout = load_checkpoint(model, plan.checkpoint)
    model.to(device).eval()
    calibration = folder.calibration(plan.calibration, plan.seed, plan.size)
    name = f"{plan.network}-{plan.method}-w{plan.w_bits}a{plan.a_bits}"
    write_json(out / f"{name}-calibration.json", list(calibration.files))
    quantized = quantize(
        model,
        calibration.images,
        plan.method,
        plan.w_bits,
        plan.a_bits,
        resume=out / name,
        seed=plan.seed,
        **plan.settings,
    )
    judged: dict[str, Any] = {"device": device, "size": plan.size, "every": plan.every}
    row = {
        "network": plan.network, "method": plan.method, "w_bits": plan.w_bits, "a_bits": plan.a_bits, "layout": layout,
        "images": plan.calibration, "seed": plan.seed, "every": plan.every,
        "float_top1": top1(model, folder, **judged), "top1": top1(quantized, folder, **judged),
    }  # fmt: skip
    return pd.DataFrame([row]).assign(**timing.machine(device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 with one line where something does not fit."""
    parser = argparse.ArgumentParser(prog="python -m paperlab.aquant.data.imagenet_run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--root", type=Path, default=os.environ.get(VARIABLE), help=f"folder with train/ and val/; {VARIABLE}"
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--network", choices=[*networks.NETWORKS, *networks.SMALL], default="ResNet-18")
    parser.add_argument("--method", choices=METHODS, default="aquant")
    for name, value in (("w-bits", 2), ("a-bits", 2), ("calibration", 1024), ("size", 224), ("every", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--iterations", type=int, default=20_000, help="per unit (default 20000, as published)")
    parser.add_argument("--out", type=Path, default=Path("imagenet_run"))
    options = vars(parser.parse_args(arguments))
    out, iterations = options.pop("out"), options.pop("iterations")
    if options["root"] is None:
        parser.error(f"give --root or set {VARIABLE}")
    torch.backends.cudnn.allow_tf32 = False
    try:
        found = run(ImageNetRun(**options, settings={"iterations": iterations}), out)
    except ValueError as error:
        parser.error(str(error))
    print(found.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
