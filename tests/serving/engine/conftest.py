"""Checkpoint folders of the tiny models, and a cluster that checks itself after every event."""

from __future__ import annotations

import pytest

from paperlab.serving.cluster import Cluster
from tests.serving.engine import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models with spaces")
    for family in tiny.FAMILIES:
        tiny.model(family).save_pretrained(root / family)
    return {family: root / family for family in tiny.FAMILIES}


@pytest.fixture
def checked(monkeypatch):
    """Have every block of every pool counted after each change; yields how often that happened."""
    counts = dict.fromkeys(("arrive", "begin", "finish", "preempt"), 0)

    def wrap(name):
        original = getattr(Cluster, name)

        def run(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            self.check()
            counts[name] += 1
            return result

        monkeypatch.setattr(Cluster, name, run)

    for name in counts:
        wrap(name)
    return counts
