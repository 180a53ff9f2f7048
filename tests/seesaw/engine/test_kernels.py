"""The Triton kernel moves what the torch path moves, in both directions; interpreted where there is no GPU."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

from paperlab.seesaw.engine.kernels import move
from paperlab.seesaw.engine.tiers import block_slots, pack, row_slots, unpack


def random(*size, dtype=torch.float32, device="cpu"):
    return torch.randn(size, generator=torch.Generator().manual_seed(len(size))).to(device, dtype)


@pytest.mark.parametrize(
    ("layers", "heads", "block", "dim", "dtype"),
    [(2, 1, 16, 8, torch.float32), (3, 2, 4, 24, torch.bfloat16), (1, 3, 5, 64, torch.float16)],
)
def test_blocks_go_out_and_come_back(device, layers, heads, block, dim, dtype):
    keys, values = (random(layers, 7 * block, heads, dim, dtype=dtype, device=device) for _ in range(2))
    slots = block_slots([5, 0, 3], block, device)
    packed = torch.empty(3, layers, 2, heads, block, dim, dtype=dtype, device=device)
    move(keys, values, slots, packed, pack=True)
    assert torch.equal(packed.cpu(), pack(keys.cpu(), values.cpu(), slots.cpu()))
    found, expected = ([torch.zeros_like(keys), torch.zeros_like(values)] for _ in range(2))
    places = block_slots([1, 6, 2], block, device)
    move(*found, places, packed, pack=False)
    expected = [tensor.cpu() for tensor in expected]
    unpack(packed.cpu(), *expected, places.cpu())
    assert all(torch.equal(ours.cpu(), theirs) for ours, theirs in zip(found, expected, strict=True))


def test_rows_past_the_end_are_not_touched(device):
    keys, values = (random(1, 9, 2, 8, device=device) for _ in range(2))
    slots = row_slots([0, 5], [5, 4], 4, device)
    packed = torch.full((3, 1, 2, 2, 4, 8), 7.0, device=device)
    move(keys, values, slots, packed, pack=True)
    assert (packed[1, :, :, :, 1:] == 7.0).all()
    assert torch.equal(packed[2, 0, 0, :, 1], keys[0, 6])
    assert torch.equal(packed[1, 0, 1, :, 0], values[0, 4])


BUILD = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from paperlab.seesaw.engine.kernels import LAUNCH_OPTIONS, _move

names = ("k_ptr", "v_ptr", "packed_ptr", "slots_ptr", "layer_stride", "S", "L", "G")
types = ("*bf16", "*bf16", "*bf16", "*i64", "i64", "i32", "i32", "i32")
for pack in (True, False):
    source = ASTSource(
        _move, signature=dict(zip(names, types)) | dict.fromkeys(("D", "TOKENS", "WIDTH", "PACK"), "constexpr"),
        constexprs={"D": 128, "TOKENS": 16, "WIDTH": 128, "PACK": pack},
    )
    built = compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=LAUNCH_OPTIONS)
    assert built.asm["cubin"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(capability):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(capability)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
