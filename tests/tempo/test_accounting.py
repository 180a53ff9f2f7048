"""Closed forms against the values published with the method and against their own consistency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paperlab.tempo.memory.accounting import (
    PLAIN,
    TEMPO,
    VARIANTS,
    LayerShape,
    Techniques,
    activation_ratio,
    leading_bytes,
    retained_bytes,
    retained_terms,
    side_mask_bytes,
    stack_bytes,
    technique_shares,
)


def bert_large(seq: int, element_bytes: int = 4) -> LayerShape:
    return LayerShape(1, seq, 1024, 16, element_bytes)


@pytest.mark.parametrize(
    ("seq", "paper", "modern", "modern_bits", "modern_half"),
    [
        (128, 1.643, 1.500, 1.600, 1.375),
        (384, 1.895, 1.579, 1.655, 1.455),
        (512, 1.977, 1.605, 1.673, 1.480),
        (1024, 2.175, 1.667, 1.714, 1.541),
        (2048, 2.340, 1.718, 1.748, 1.590),
    ],
)
def test_ratios_of_bert_large(seq: int, paper: float, modern: float, modern_bits: float, modern_half: float) -> None:
    shape, bits = bert_large(seq), replace(TEMPO, side_mask="bit")
    found = (
        activation_ratio(shape, "paper"),
        activation_ratio(shape, "modern"),
        activation_ratio(shape, "modern", bits),
        activation_ratio(bert_large(seq, 2), "modern"),
    )
    assert found == pytest.approx((paper, modern, modern_bits, modern_half), abs=5.1e-4)


@pytest.mark.parametrize(
    ("name", "bsh", "bas2"),
    [
        ("eager, modern", 66, 9),
        ("eager, paper era", 66, 13),
        ("+ GELU only", 54, 9),
        ("+ LayerNorm only", 58, 9),
        ("+ dropout recompute only", 66, 5),
        ("Tempo", 46, 5),
        ("Tempo, bit mask", 42.5, 5),
        ("eager, Python gelu_new", 114, 9),
        ("checkpoint", 4, 0),
    ],
)
def test_coefficients_in_fp32(name: str, bsh: float, bas2: float) -> None:
    era, techniques = VARIANTS[name]
    for shape in (LayerShape(2, 64, 128, 4), LayerShape(3, 40, 64, 8)):
        assert leading_bytes(shape, techniques, era) == bsh * shape.bsh + bas2 * shape.bas2


@pytest.mark.parametrize(("batch", "seq", "eager", "tempo"), [(32, 512, 51.756, 32.315), (128, 128, 31.506, 21.065)])
def test_bert_large_stack(batch: int, seq: int, eager: float, tempo: float) -> None:
    shape = LayerShape(batch, seq, 1024, 16)
    found = stack_bytes(shape, 24) / 2**30, stack_bytes(shape, 24, TEMPO) / 2**30
    assert found == pytest.approx((eager, tempo), abs=5.1e-4)


def test_limits_of_long_sequences() -> None:
    assert activation_ratio(bert_large(2**20), "paper") == pytest.approx(13 / 5, rel=1e-3)
    assert activation_ratio(bert_large(2**20), "modern") == pytest.approx(9 / 5, rel=1e-3)


@pytest.mark.parametrize("era", ["paper", "modern"])
@pytest.mark.parametrize("seq", [128, 512])
def test_shares_add_up_to_what_all_techniques_save(era: str, seq: int) -> None:
    shares = technique_shares(bert_large(seq), era)  # type: ignore[arg-type]
    assert sum(shares.values()) == pytest.approx(1 - 1 / activation_ratio(bert_large(seq), era))  # type: ignore[arg-type]


def test_shares_of_the_paper_era() -> None:
    percent = {name: round(100 * share, 1) for name, share in technique_shares(bert_large(512), "paper").items()}
    assert percent == {"gelu": 7.1, "layernorm": 4.7, "dropout_recompute": 18.8, "softmax_output": 18.8}
    assert technique_shares(bert_large(512), "modern")["softmax_output"] == 0.0


def test_bytes_grow_linearly_with_the_batch() -> None:
    for era, techniques in VARIANTS.values():
        one, five = (retained_bytes(LayerShape(b, 24, 16, 2), techniques, era) for b in (1, 5))
        assert five == 5 * one


def test_every_technique_only_saves() -> None:
    shape = LayerShape(2, 33, 48, 3)
    for single in (Techniques(gelu=True), Techniques(layernorm=True), Techniques(dropout_recompute=True)):
        assert retained_bytes(shape, TEMPO) < retained_bytes(shape, single) < retained_bytes(shape, PLAIN)


def test_terms_are_what_the_total_adds() -> None:
    shape = LayerShape(2, 33, 48, 3)
    for era, techniques in VARIANTS.values():
        assert sum(retained_terms(shape, techniques, era).values()) == retained_bytes(shape, techniques, era)


def test_packed_mask_rounds_up() -> None:
    assert [side_mask_bytes(n, "bit") for n in (0, 1, 8, 9)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "LayerShape.batch is 0; it must be a positive integer"),
        ({"seq": 1.5}, "LayerShape.seq is 1.5"),
        ({"heads": 3}, "LayerShape.hidden is 8; it must be a multiple of heads=3"),
    ],
)
def test_bad_shapes_are_named(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        LayerShape(**{"batch": 1, "seq": 4, "hidden": 8, "heads": 2} | change)


def test_bad_choices_are_named() -> None:
    with pytest.raises(ValueError, match="side_mask is 'nibble'"):
        Techniques(side_mask="nibble")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attention is 'flash'"):
        Techniques(attention="flash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="era is 'old'"):
        retained_bytes(LayerShape(1, 1, 1, 1), era="old")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers is 0"):
        stack_bytes(LayerShape(1, 1, 1, 1), 0)
