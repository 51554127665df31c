"""A fresh relay on a fake clock for each test, once with each engine."""

from collections.abc import Iterator

import pytest
from relay_world import ENGINES, World


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(engine_kind=request.param)
    yield made
    made.close()


@pytest.fixture
def plain_world() -> Iterator[World]:
    """For what is told by looking inside: the plain engine only."""
    made = World()
    yield made
    made.close()
