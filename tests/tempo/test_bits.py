from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlab.tempo.ops import bits


@given(st.lists(st.booleans(), max_size=70))
def test_pack_is_numpys_little_endian_packbits(values):
    mask = torch.tensor(values, dtype=torch.bool)
    packed = bits.pack(mask)
    assert np.array_equal(packed.numpy(), np.packbits(mask.numpy(), bitorder="little"))
    assert packed.numel() == bits.packed_bytes(len(values)) == (len(values) + 7) // 8
    assert torch.equal(bits.unpack(packed, len(values)), mask)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (2, 0, 4), (4, 8)])
def test_round_trip_keeps_the_shape(shape):
    mask = torch.rand(shape) > 0.5
    assert torch.equal(bits.unpack(bits.pack(mask), shape), mask)


def test_strided_masks_are_packed_in_row_major_order():
    mask = torch.rand(6, 10) > 0.5
    assert torch.equal(bits.pack(mask.t()), bits.pack(mask.t().contiguous()))


def test_meta_tensors_have_the_packed_size():
    assert bits.pack(torch.empty(17, dtype=torch.bool, device="meta")).shape == (3,)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"mask must be torch\.bool, got torch\.float32"):
        bits.pack(torch.zeros(3))
    with pytest.raises(ValueError, match=r"packed must be uint8 of shape \(2,\) for a mask of shape \(9,\)"):
        bits.unpack(torch.zeros(1, dtype=torch.uint8), 9)
