"""What timing bars share."""

from __future__ import annotations

import psutil
import pytest

BUSY_PERCENT = 25  # of all cores, by other processes


@pytest.fixture
def idle_cores():
    """Skip, visibly, where other processes keep the cores busy."""
    busy = psutil.cpu_percent(interval=2)
    if busy > BUSY_PERCENT:
        pytest.skip(f"{busy:.0f} % of the cores are busy; timing needs them idle")
