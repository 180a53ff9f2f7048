"""The kernels equal torch to the bit, compiled or interpreted, and compile for CUDA without a device."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.layers import QuantConv2d
from paperlab.aquant.quantizer import ActivationQuantizer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def kernels():
    from paperlab.aquant.deploy import kernels

    return kernels


def make(device, spec, bits=2, zero_point=1, channels=5, positions=1, scale=0.3):
    quantizer = ActivationQuantizer(bits)
    if spec is not None:
        quantizer.border = Border(spec, channels, positions)
        quantizer.border.coefficients.data = 0.3 * torch.randn_like(quantizer.border.coefficients)
    quantizer.set_grid(torch.tensor(scale), torch.tensor(float(zero_point)))
    return quantizer.to(device)


def activations(quantizer, shape, device):
    """Values over the range and beyond, many of them ties of nearest rounding."""
    levels = torch.rand(shape) * (quantizer.top + 4) - 3
    ties = torch.rand(shape) < 0.3
    levels = torch.where(ties, (levels * 2).round() / 2, levels)
    return levels.to(device) * quantizer.scale.detach()


CASES = [
    ("nearest", None),
    ("function", BorderSpec(bound="none")),
    ("function", BorderSpec(bound="clip", degree=1)),
    ("function", BorderSpec(bound="none", degree=0, granularity="tensor")),
    ("thresholds", BorderSpec()),
    ("thresholds", BorderSpec(bound="none")),
    ("thresholds", BorderSpec(granularity="tensor")),
    ("thresholds", None),
]


@torch.no_grad()
@pytest.mark.parametrize(("form", "spec"), CASES)
@pytest.mark.parametrize(("bits", "zero_point", "scale"), [(2, 1, 0.3), (4, 0, 0.25), (8, 7, 0.01)])
def test_elements_are_identical(form, spec, bits, zero_point, scale, device, kernels):
    quantizer = make(device, spec, bits, zero_point, scale=scale)
    prepared = kernels.prepare_quantizer(quantizer, form)
    for shape, block in (((3, 5, 7, 11), 64), ((2, 5), None), ((0, 5, 3, 3), None)):
        x = activations(quantizer, shape, device)
        assert torch.equal(kernels.quantize(x, prepared, block=block), quantizer.codes(x))
        assert torch.equal(kernels.quantize(x, prepared, codes=False), quantizer(x))
    strided = activations(quantizer, (3, 7, 11, 5), device).permute(0, 3, 1, 2)
    assert torch.equal(kernels.quantize(strided, prepared), quantizer.codes(strided))


def convolution(stride, padding, kernel=3, dilation=1):
    return QuantConv2d(nn.Conv2d(2, 4, kernel, stride, padding, dilation), 4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("form", "spec"),
    [
        ("nearest", None),
        ("function", BorderSpec(granularity="kernel_pos", bound="none")),
        ("thresholds", BorderSpec(granularity="kernel_pos")),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 0), (1, 2, 3, 2), (1, (0, 1), (1, 3))])
def test_patches_are_identical(form, spec, shape, device, kernels):
    conv = convolution(*shape)
    area = conv.kernel_size[0] * conv.kernel_size[1]
    quantizer = make(device, spec, channels=2, positions=area, zero_point=1)
    x = activations(quantizer, (2, 2, 8, 6), device)
    inside = conv.unfold(torch.ones_like(x[:1]))
    levels = quantizer.levels(conv.unfold(x)) * inside
    prepared = kernels.prepare_quantizer(quantizer, form)
    assert torch.equal(kernels.quantize_patches(x, conv, prepared), (levels + quantizer.zero_point).to(torch.uint8))
    assert torch.equal(kernels.quantize_patches(x, conv, prepared, codes=False), levels * quantizer.scale)


@torch.no_grad()
def test_the_kernels_are_what_runs(device, kernels, monkeypatch):
    quantizer = make(device, BorderSpec())
    x = activations(quantizer, (2, 5, 4, 4), device)
    expected = quantizer.codes(x)
    prepared = kernels.prepare_quantizer(quantizer)
    monkeypatch.setattr(ActivationQuantizer, "levels", None)
    monkeypatch.setattr(Border, "offset", None)
    before = kernels.launches.copy()
    assert torch.equal(kernels.quantize(x, prepared), expected)
    assert kernels.launches - before == {"elements, thresholds": 1}


def test_what_does_not_fit_is_told(device, kernels):
    for form, spec in (("function", BorderSpec()), ("nearest", BorderSpec()), ("function", None), ("other", None)):
        with pytest.raises(ValueError, match=f"form '{form}' does not fit"):
            kernels.prepare_quantizer(make(device, spec), form)
    prepared = kernels.prepare_quantizer(make(device, BorderSpec()))
    with pytest.raises(ValueError, match="x has 4 channels; the quantizer has 5 rows"):
        kernels.quantize(torch.zeros(1, 4, device=device), prepared)
    with pytest.raises(ValueError, match="patches have 18 rows; the quantizer has 5"):
        kernels.quantize_patches(torch.zeros(1, 2, 4, 4, device=device), convolution(1, 1), prepared)
    with pytest.raises(TypeError, match=r"take float32, got torch\.float64"):
        kernels.quantize(torch.zeros(1, 5, device=device, dtype=torch.float64), prepared)


def run_python(code, **environment):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=env)


def test_deployment_runs_where_triton_cannot_be_imported():
    run_python("""
        import sys
        sys.modules["triton"] = None
        from paperlab.aquant.deploy import export, integer, lower, thresholds
    """)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_cuda_without_a_device(capability, tmp_path):
    """The interpreter forgives what the compiler does not; this covers every variant that is ever launched."""
    pytest.importorskip("triton.backends.nvidia")
    run_python(
        f"""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile
        from paperlab.aquant.deploy import kernels

        def build(kernel, **arguments):
            names = kernel.arg_names
            signature = {{n: arguments[n] if isinstance(arguments[n], str) and arguments[n] not in kernels.FORMS
                          else "constexpr" for n in names}}
            constants = {{(i,): arguments[n] for i, n in enumerate(names) if signature[n] == "constexpr"}}
            source = ASTSource(kernel, signature=signature, constexprs=constants)
            built = compile(source, target=GPUTarget("cuda", {capability}, 32), options=kernels.LAUNCH_OPTIONS)
            assert built.asm["cubin"]
            ptx = built.asm["ptx"]
            assert "f64" not in ptx, "a constant has widened the arithmetic"
            assert "fma" not in ptx, "a multiplication and an addition were fused"
            assert "div.full" not in ptx and "div.approx" not in ptx

        shared = dict(x_ptr="*fp32", table_ptr="*fp32", scale_ptr="*fp32", low="fp32", high="fp32", BLOCK=1024)
        for form, degree, clipped in (("nearest", 0, False), ("function", 2, False), ("function", 1, True),
                                      ("thresholds", 0, False)):
            for codes, bits in ((True, 2), (False, 8)):
                variant = dict(FORM=form, BITS=bits, DEGREE=degree, CLIPPED=clipped, ROWS=64, CODES=codes,
                               out_ptr="*u8" if codes else "*fp32", **shared)
                build(kernels._elements, numel="i64", pixels="i32", channels="i32", **variant)
                build(kernels._patches, C="i32", H="i32", W="i32", out_H="i32", out_W="i32", pad_h="i32", pad_w="i32",
                      KH=3, KW=3, SH=2, SW=1, DH=1, DW=1, **variant)
        """,
        TRITON_CACHE_DIR=str(tmp_path),
    )
