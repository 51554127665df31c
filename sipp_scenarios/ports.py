"""Free loopback ports for programs that cannot be told "any", each handed out once by a process."""

import random
import socket

_handed_out: set[int] = set()


def free_ports(width: int = 1) -> int:
    """The first of `width` neighbouring ports that are free on 127.0.0.1 for UDP and TCP.

    The first is even, so that an RTP port may be followed by its RTCP port (RFC 3550 section 11). They lie below the
    relay's range and the kernel's ephemeral one, so nobody else is given one before the program has bound it.
    """
    for _attempt in range(1000):
        first = random.randrange(10_000, 19_900, 2)
        ports = range(first, first + width)
        if _handed_out.isdisjoint(ports) and all(map(_is_free, ports)):
            _handed_out.update(ports)
            return first
    raise OSError(f"no {width} neighbouring free ports")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
