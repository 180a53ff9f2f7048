"""The measured capacity: its search with a fake GPU, its process without a GPU, and the real thing with one."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from paperlab.tempo.dropin import patch
from paperlab.tempo.memory.capacity import max_batch, synthetic_batch
from paperlab.tempo.memory.probe import Probe, ProbeResult, build_model, measure_max_batch, run_in_subprocess

GIB = 2**30
CONFIG = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, vocab_size=101)


def probe(arm: str = "Tempo", **changes: int) -> Probe:
    settings = {"batch": 1, "seq_len": 32, "memory_bytes": 4 * GIB} | changes
    return Probe("BertForMaskedLM", CONFIG.to_dict(), arm, **settings)


@pytest.mark.parametrize("guess", [1, 12, 13, 14, 50])
def test_search_ends_where_memory_runs_out(guess: int) -> None:
    def fake(request: Probe) -> ProbeResult:
        fits = request.batch <= 13
        return ProbeResult(request.batch, fits, 3 if fits else 0, request.batch, request.batch, "fake", "")

    best, table = measure_max_batch(probe(), guess, fake)
    assert best == 13
    assert table.batch.is_monotonic_increasing
    assert table.batch.is_unique
    assert not table.fits[table.batch == 14].item()
    assert table.fits.tolist() == (table.batch <= 13).tolist()


def test_probes_build_the_model_they_name() -> None:
    model = build_model(probe())
    assert len(patch.report(model).replaced("gelu")) == 2
    assert model.training
    loss = model(**synthetic_batch(model, 2, 16, "cpu")).loss
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the message of a machine without CUDA")
def test_no_gpu_is_one_line() -> None:
    with pytest.raises(RuntimeError, match="the probe of batch 1 failed: a probe needs a CUDA device and found none"):
        run_in_subprocess(probe())


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("arm", ["eager, modern", "Tempo"])
def test_measured_and_modeled_batch_agree(arm: str) -> None:
    request = probe(arm, seq_len=512, memory_bytes=3 * GIB)
    model = build_model(request)
    modeled = max_batch(model, request.memory_bytes, request.seq_len, arm, reserve_bytes=request.reserve_bytes)
    measured, table = measure_max_batch(request, modeled)
    assert not table.fits[table.batch == measured + 1].item()
    assert measured == pytest.approx(modeled, rel=0.1)
