import pytest

from paperlab.seesaw.engine import RankPool


@pytest.fixture(scope="package")
def two():
    """Two ranks for all tests of the package: starting them costs seconds."""
    with RankPool(2) as pool:
        yield pool


@pytest.fixture(scope="package")
def four():
    with RankPool(4) as pool:
        yield pool
