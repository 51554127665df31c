"""Whatever the fuzzer once broke stays mended; its harnesses bear their own seeds, and long inputs cost no more than
their length."""

import os
from pathlib import Path

import pytest

from fuzz.native.build import NoCompiler
from fuzz.registry import TARGETS
from fuzz.target import FINDINGS, Target

PIECES = [*b', ; " \\ < ( * 0 a= %41 x,y; \x00'.split(), b" ", b"\r\n ", b"\r\n"]
FOUND = sorted(path for path in FINDINGS.glob("*/*") if path.is_file())


def check(target: Target, data: bytes) -> None:
    """A harness in C is compiled first: where that cannot be, it is only let off outside CI."""
    try:
        target.check(data)
    except NoCompiler as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_what_the_fuzzer_found_is_mended(path: Path) -> None:
    check(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_harness_bears_its_seeds(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert seeds
    for data in seeds:
        check(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_repetition_without_end_costs_no_more_than_its_length(name: str) -> None:
    """The pieces a quadratic parser would stumble over, as often as the harness takes."""
    target = TARGETS[name]
    for piece in (
        b",",
        b";",
        b'"',
        b"\\",
        b"<",
        b"(",
        b" ",
        b"\r\n ",
        b"\r\n",
        b"a=",
        b"%41",
        b"*",
        b"0",
        b"\0",
        b"x,y;",
    ):
        check(target, piece * (target.max_bytes // len(piece)))
    for seed in list(target.seeds())[:4]:
        check(target, seed * (1 + target.max_bytes // max(1, len(seed))))
