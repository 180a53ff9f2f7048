"""One test body for both kinds of machine: compiled kernels on CUDA, Triton's interpreter elsewhere."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: more threads than that make small operators several times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, so before any kernel module is


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
