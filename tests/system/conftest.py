"""What every system test needs: the project's root on the path, footage, a server with sample subscribers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # sipp_scenarios is no installed package

from reel import repeated
from server import Server

from dialcast.footage import Footage
from dialcast.footage import footage as fetched_footage


@pytest.fixture(scope="session")
def footage() -> Footage:
    """Real clips and voices, fetched once."""
    return fetched_footage()


@pytest.fixture(scope="session")
def reel(footage: Footage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bikes`, a minute long."""
    return repeated(footage.clips["bikes"], 6, tmp_path_factory.mktemp("reel") / "bikes.mp4")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of one file; each leaves it as it found it."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running
