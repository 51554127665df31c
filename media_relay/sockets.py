"""UDP sockets for media: opening them with the right options, and reading what ICMP said about whom.

Sockets are unconnected and shared by many peers, so the kernel's pending error is not of the next destination:
`unreachable` drains the error queue (ip(7), IP_RECVERR) and names the addresses that are really concerned.
"""

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct

from protocols.net import Address

_IP_RECVERR = 11
_IPV6_RECVERR = 25
_EXTENDED_ERROR = Struct("=IBBBBII")
_ICMP_ORIGINS = (2, 3)
_ERROR_BYTES = 512
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MAX_ERRORS = 64
"""Errors drained at a time, so that a flood of ICMP cannot hold the relay up."""


def open_udp(address: Address, *, buffer_bytes: int, dscp: int) -> socket.socket:
    """A non-blocking UDP socket bound to `address`; OSError when the port is taken."""
    six = ":" in address.host
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.bind(tuple(address))
    except OSError:
        sock.close()
        raise
    return sock


def unreachable(sock: socket.socket) -> list[Address]:
    """Destinations that ICMP reported since the last call."""
    addresses = []
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reading clears it; else the next send would fail
    for _ in range(_MAX_ERRORS):
        try:
            _, ancillary, _, peer = sock.recvmsg(0, _ERROR_BYTES, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for level, kind, data in ancillary:
            wanted = (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
            if wanted and len(data) >= _EXTENDED_ERROR.size and peer:
                number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
                if origin in _ICMP_ORIGINS and number != errno.EMSGSIZE:
                    addresses.append(Address(*peer[:2]))
    return addresses


class PortsExhausted(OSError):
    """Every port of the range is in use, or the process may open no more sockets."""


class PortRange:
    """Hands out RTP/RTCP socket pairs (even, odd; RFC 3550 section 11) within a bounded range."""

    def __init__(self, host: str, first: int, last: int, buffer_bytes: int) -> None:
        self._host = host
        self._pairs = range(first, last, 2)
        self._buffer_bytes = buffer_bytes
        self._free: list[int] = list(self._pairs)

    def open_pair(self, dscp: int, wished: int | None = None) -> tuple[socket.socket, socket.socket]:
        """Two bound sockets, RTP and RTCP, from the port `wished` if it is free; PortsExhausted when there is no room.

        The longest unused pair comes first, so that stragglers of an ended call do not reach the next one. A pair
        that another program holds goes to the end of the queue.
        """
        if wished in self._free:
            self._free.remove(wished)
            self._free.insert(0, wished)
        for _ in range(len(self._free)):
            port = self._free.pop(0)
            rtp = None
            try:
                rtp = open_udp(Address(self._host, port), buffer_bytes=self._buffer_bytes, dscp=dscp)
                rtcp = open_udp(Address(self._host, port + 1), buffer_bytes=self._buffer_bytes, dscp=dscp)
            except OSError as error:
                if rtp is not None:
                    rtp.close()
                self._free.append(port)
                if error.errno in _NO_RESOURCES:
                    break
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise
            return rtp, rtcp
        raise PortsExhausted(errno.EADDRNOTAVAIL, "no media port left in the configured range, or no socket for it")

    def close_pair(self, sockets: Sequence[socket.socket]) -> None:
        """Close a pair and give its ports back."""
        port: int = sockets[0].getsockname()[1]
        for sock in sockets:
            with suppress(OSError):
                sock.close()
        self._free.append(port)
