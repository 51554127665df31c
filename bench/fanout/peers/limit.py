"""The floor: receive and send, nothing else (limit.c)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.fanout.peers.process import INLET_PORTS, Inlet, Places, Running, compiled, ports_in_a_row, started


@contextmanager
def limit(folder: Path, places: Places) -> Iterator[Running]:
    """Nothing but the system calls."""
    first = ports_in_a_row(2 * places.groups, *INLET_PORTS)
    numbers = (first, places.first_viewer, places.groups, places.viewers)
    with started([str(compiled("limit", folder)), *map(str, numbers)], "ready", folder) as (pid, _):
        yield Running([Inlet(first + 2 * group, first + 2 * group + 1) for group in range(places.groups)], pid)
