"""Ports for phones: two processes that look for free ones at the same time are given different ones."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from evented import ROOT

from sipp_scenarios import ports

HANDED_OUT = (
    "from sipp_scenarios.ports import free_ports\nprint(*(free_ports() for _ in range(300)), flush=True)\ninput()"
)


@contextmanager
def another_process() -> Iterator[set[int]]:
    """A process that was given 300 ports, binds none of them, and lives on; the ports."""
    with subprocess.Popen(
        [sys.executable, "-c", HANDED_OUT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield set(map(int, process.stdout.readline().split()))
        process.communicate("\n", timeout=20)


def test_no_two_processes_are_given_the_same_port() -> None:
    with ExitStack() as stack:
        one, other = [stack.enter_context(another_process()) for _ in range(2)]
        assert len(one) == len(other) == 300
        assert not one & other
        mine = {ports.free_ports(2) for _ in range(100)}
        assert len(mine) == 100
        assert not (mine | {port + 1 for port in mine}) & (one | other)
