"""The live-storage tracker against peaks worked out by hand, and against the ledger."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paperlab.tempo.dropin import baselines
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.accounting import LayerShape
from paperlab.tempo.memory.ledger import retained_bytes
from paperlab.tempo.memory.peak import step_peak

from .tiny_models import bert_encoder, tiny_batch, tiny_model

UNIT = 4 * 1000  # bytes of the tensors below


class Chain(nn.Module):
    """Three tensors of one unit in forward, of which two (`a` and `b`) are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))

    def forward(self, x: Tensor) -> Tensor:
        a = (self.weight * x).exp()  # the product dies, exp keeps its output
        b = a.sin().exp()  # sin keeps a, exp keeps b; sin's output dies
        return b.sum()


def test_peak_worked_out_by_hand() -> None:
    peak = step_peak(Chain(), {"x": torch.ones(1000)}, loss=lambda loss: loss)
    # forward: a, sin(a), b at once, then a and b and the 4-byte loss
    assert peak.forward_bytes == 2 * UNIT + 4
    # backward of sin, b being dead: a, the gradient of sin's output, cos(a) and their product, beside the loss
    # and the 4-byte gradient it starts from
    assert peak.peak_bytes == 4 * UNIT + 8
    assert peak.phase == "backward"
    assert peak.end_bytes == UNIT
    assert peak.transient_bytes == peak.peak_bytes - peak.forward_bytes


def test_forward_phase_can_hold_the_peak() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            wide = torch.cat([x, x, x, x]).detach()
            return self.weight * wide.sum()

    peak = step_peak(Wide(), {"x": torch.ones(1000)}, loss=lambda loss: loss.sum())
    assert (peak.phase, peak.operator) == ("forward", "mul")
    assert peak.peak_bytes == 4 * UNIT + 8  # the concatenation, its sum and the product


def test_views_and_inputs_do_not_count() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10, 100))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight.T.reshape(100, 10) @ x.view(10, 100)).sum()

    peak = step_peak(View(), {"x": torch.ones(1000)}, loss=lambda loss: loss)
    assert peak.forward_bytes == 4


@pytest.mark.parametrize("arm", ["eager, modern", "eager, paper era", "Tempo"])
def test_forward_bytes_agree_with_the_ledger(arm: str) -> None:
    model, batch = baselines.configure(tiny_model("bert"), arm), tiny_batch("bert", seq=64)
    live = step_peak(model, batch).forward_bytes
    assert live == pytest.approx(retained_bytes(model, batch), rel=0.01)


def test_cpu_and_meta_agree() -> None:
    model = baselines.configure(tiny_model("gpt2"), "eager, modern")
    batch = {"input_ids": torch.ones(2, 16, dtype=torch.long), "attention_mask": torch.ones(2, 16)}
    on_meta = step_peak(meta_copy(model), {name: tensor.to("meta") for name, tensor in batch.items()})
    assert on_meta.forward_bytes == pytest.approx(step_peak(model, batch).forward_bytes, rel=0.005)


def test_what_a_step_leaves_behind() -> None:
    model, batch = tiny_model("bert"), tiny_batch("bert")
    parameters = sum(p.nbytes for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    first = step_peak(model, batch, optimizer=optimizer)
    counters = 4 * len(list(model.parameters()))
    assert first.end_bytes == 3 * parameters + counters
    assert step_peak(model, batch).end_bytes == 0  # gradients and state are there already


@pytest.mark.parametrize(("batch", "seq"), [(1, 16), (4, 64), (2, 128), (3, 37)])
def test_tempo_never_peaks_above_the_baseline(batch: int, seq: int) -> None:
    shape = LayerShape(batch, seq, 64, 4)
    peaks = {}
    for arm in ("eager, modern", "eager, paper era", "Tempo", "LayerNorm", "GELU", "attention"):
        model, inputs = bert_encoder(batch, seq, 64, 4, 2)
        baselines.configure(model, arm)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        peaks[arm] = step_peak(model, inputs)
    for arm in ("Tempo", "LayerNorm", "GELU", "attention"):
        assert peaks[arm].peak_bytes <= peaks["eager, modern"].peak_bytes < peaks["eager, paper era"].peak_bytes
    # a parameter's gradient is formed before it is added to the one that is there
    largest_gradient = max(parameter.nbytes for parameter in model.parameters())
    assert peaks["Tempo"].transient_bytes <= 2 * 4 * shape.bas2 + 4 * 4 * shape.bsh + largest_gradient
