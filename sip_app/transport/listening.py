"""Sockets that listen: bound by us, so that one port number serves UDP and TCP and IPv6 stays apart from IPv4."""

import errno
import socket
from dataclasses import dataclass

from protocols.net import Address, Transport, bracketed

UDP_BUFFER_BYTES = 4_194_304
BACKLOG = 512
_ATTEMPTS = 20
"""Port numbers tried for one that is free for UDP and TCP alike."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Something we listen on, and what our messages show for it."""

    transport: Transport
    local: Address
    shown: Address

    @property
    def everywhere(self) -> bool:
        """True for a wildcard address."""
        return self.local.host in ("0.0.0.0", "::")

    def serves(self, host: str) -> bool:
        """True if the address `host` is of this listener's family."""
        return (":" in self.local.host) == (":" in host)


def bound_socket(kind: socket.SocketKind, host: str, port: int, dscp: int, *, only_v6: bool) -> socket.socket:
    """A bound socket, ready for the reactor. OSError that names the address if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    handle = socket.socket(family, kind)
    try:
        handle.setblocking(False)
        if family == socket.AF_INET6:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        else:
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        if kind == socket.SOCK_STREAM:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_BYTES)
        handle.bind((host, port))
        if kind == socket.SOCK_STREAM:
            handle.listen(BACKLOG)
    except OSError as error:
        handle.close()
        raise OSError(error.errno, f"cannot listen on {bracketed(host)}:{port}: {error.strerror}") from error
    return handle


def bound_pair(host: str, port: int, dscp: int, *, only_v6: bool) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port; for port 0 one that is free for both."""
    for _ in range(_ATTEMPTS):
        stream = bound_socket(socket.SOCK_STREAM, host, port, dscp, only_v6=only_v6)
        try:
            return bound_socket(socket.SOCK_DGRAM, host, stream.getsockname()[1], dscp, only_v6=only_v6), stream
        except OSError as error:
            stream.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"cannot listen on {bracketed(host)}: no port is free for UDP and TCP alike")
