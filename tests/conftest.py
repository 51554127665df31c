"""For all tests: names that are the same in every process, so that they can be shared among several."""

import pytest


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are named by their length: some are made at random."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None
