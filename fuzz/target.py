"""A harness: one parser, the inputs it starts from, and what must hold for whatever comes after them.

A harness raises only for a defect: an error of another kind than the parser's own, a value that does not survive being
written and read again (`must_equal`), an input that costs more than `MAX_SECONDS` or grows beyond all proportion.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = ROOT / "tests" / "fuzz_findings"
CORPUS = ROOT / "tests" / "rfc4475"
MAX_SECONDS = 0.5
"""CPU seconds one input may take, under the fuzzer's instrumentation, which makes Python some ten times slower."""
MAX_BYTES = 65_536
MAX_GROWTH = 16
"""How many times its input a written value may be long, beyond the first 4 KiB."""


class Defect(AssertionError):
    """An oracle failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under test: `read` takes one input, `seeds` are the inputs to begin with."""

    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    max_bytes: int = MAX_BYTES
    program: Callable[[], Path] | None = None
    """Makes the libFuzzer program of a harness that is in C; `read` replays it then. Raises OSError without clang."""

    def check(self, data: bytes) -> None:
        """One input against all that must hold. Raises whatever is wrong."""
        data = data[: self.max_bytes]
        started = time.process_time()
        self.read(data)
        took = time.process_time() - started
        if took > MAX_SECONDS:
            raise Defect(f"{len(data)} bytes took {took:.2f} s")


def must_equal(one: object, other: object) -> None:
    """Parsed, written and parsed again must be the same."""
    if one != other:
        raise Defect(f"{one!r:.500} became {other!r:.500}")


def must_be_small(written: bytes | str, data: bytes) -> None:
    """What is written must be in proportion to what was read."""
    if len(written) > 4096 + MAX_GROWTH * len(data):
        raise Defect(f"{len(data)} bytes became {len(written)}")


def torture() -> list[bytes]:
    """The messages of RFC 4475."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.dat"))]
