"""Free loopback ports for programs that cannot be told "any": what one process was given, no other is given.

A port that was found free is bound by a program only later, on a busy machine much later. So each process has ranges of
ports of its own, each claimed by a socket on the range's first port that is held as long as the process lives: workers
of one test run, the suite they start, and another run beside them never give one port to two programs.
"""

import random
import socket
import threading
from collections.abc import Iterator
from itertools import cycle
from typing import Final

RANGE: Final = 150
"""Ports a process claims at a time."""
RANGES: Final = range(10_000, 19_900, RANGE)
"""Where they start: below the relay's ports and the kernel's ephemeral ones, which anybody is given."""
MOST: Final = 6
"""Ranges of one process: 66 are enough for eleven at once."""

_claims: dict[int, socket.socket] = {}
"""The ranges that are ours, by their first port."""
_left = range(0)
"""What of the range claimed last was not handed out yet."""
_again: Iterator[int] = iter(())
"""Our ranges over and over, once we have enough."""
_one_at_a_time = threading.Lock()


def free_ports(width: int = 1) -> int:
    """The first of `width` neighbouring ports that are free on 127.0.0.1 for UDP and TCP.

    The first is even, so that an RTP port may be followed by its RTCP port (RFC 3550 section 11). What was handed out
    is handed out again only some 900 ports later. Raises OSError when there are none.
    """
    global _left
    with _one_at_a_time:
        for _range in range(2 * MOST):
            while len(_left) >= width:
                ports = _left[:width]
                _left = _left[width + width % 2 :]
                if all(map(_is_free, ports)):
                    return ports[0]
            _left = _next_range()
    raise OSError(f"no {width} neighbouring free ports")


def _next_range() -> range:
    """One more range of ours, or again the first of those we have; without its claim and what pairs with that."""
    global _again
    if len(_claims) < MOST:
        for first in random.sample(RANGES, len(RANGES)):
            if first not in _claims and (claim := _bound(first, socket.SOCK_STREAM)) is not None:
                _claims[first] = claim
                _again = cycle(tuple(_claims))
                return range(first + 2, first + RANGE)
    ours = next(_again, None)
    return range(0) if ours is None else range(ours + 2, ours + RANGE)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        probe = _bound(port, kind)
        if probe is None:
            return False
        probe.close()
    return True


def _bound(port: int, kind: socket.SocketKind) -> socket.socket | None:
    """A socket at the port, None if another is."""
    one = socket.socket(socket.AF_INET, kind)
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        one.close()
        return None
    return one
