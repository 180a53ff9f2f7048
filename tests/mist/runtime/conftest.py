import pytest

from paperlab.mist.runtime.pool import RankPool


@pytest.fixture(scope="package")
def pool():
    """Four ranks for all tests of the package: starting one costs seconds."""
    with RankPool(4) as ranks:
        yield ranks
