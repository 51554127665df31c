"""For all tests: names that are the same in every process, so that they can be shared among several; and Ctrl-C."""

import signal

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair; under CI this is the library's own way.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """A shell's background jobs are born deaf to Ctrl-C; so would be all that tests start and send it to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are named by their length: some are made at random."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None
