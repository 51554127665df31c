"""A fresh relay on a fake clock for each test."""

from collections.abc import Iterator

import pytest
from relay_world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()
