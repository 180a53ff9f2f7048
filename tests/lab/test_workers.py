"""Pieces of work over processes, and processes that stay."""

import os

import pytest

from paperlab.lab.workers import in_processes


def process(item):
    if item < 0:
        raise ValueError(f"item is {item}")
    return os.getpid()


def test_processes_stay_where_they_are_asked_to(monkeypatch):
    first = set(in_processes(process, range(8), 2, reuse=True))
    assert os.getpid() not in first
    assert set(in_processes(process, range(8), 2, reuse=True)) <= first
    assert not first & set(in_processes(process, range(8), 2))
    monkeypatch.setenv("PAPERLAB_CACHE", "elsewhere")
    assert not first & set(in_processes(process, range(8), 2, reuse=True))


def test_after_a_failure_processes_are_new_ones():
    before = set(in_processes(process, range(8), 2, reuse=True))
    with pytest.raises(ValueError, match="item is -1"):
        in_processes(process, [0, -1, 2], 2, reuse=True)
    assert not before & set(in_processes(process, range(8), 2, reuse=True))
