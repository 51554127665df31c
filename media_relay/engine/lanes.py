"""Sockets of their own for viewers whose packets found the shared one full.

A slow path holds what it was given, and one that holds the whole of a group's buffer would stop all the others. A lane
sends from the same port and takes nothing in: whatever comes to the port goes to the shared socket (socket(7),
SO_REUSEPORT; the kernel's SO_ATTACH_REUSEPORT_CBPF). Once it was not full for long and holds nothing, the viewer shares
again.
"""

import ctypes
import fcntl
import socket
import struct
import termios

MAX_LANES = 1024
"""Viewers with a socket of their own: a group's worth, each a descriptor. Above it what finds the shared one full is
dropped."""
LANE_SECONDS = 10.0
"""Without a full socket, after which a viewer shares again."""
_ATTACH_REUSEPORT_CBPF = 51
_RETURN_CONSTANT = 0x06
_FIRST = ctypes.create_string_buffer(struct.pack("=HBBI", _RETURN_CONSTANT, 0, 0, 0))
"""A BPF program of one instruction: the socket that was there first."""
_PROGRAM = struct.pack("@HP", 1, ctypes.addressof(_FIRST))


class Lane:
    """One viewer's own socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._full = True
        self._until = 0.0

    def found_full(self) -> None:
        """It had no room."""
        self._full = True

    def needed(self, now: float) -> bool:
        """False when the viewer may share again."""
        if self._full:
            self._full = False
            self._until = now + LANE_SECONDS
        return now < self._until or _queued(self.socket) > 0


class Lanes:
    """All lanes of an engine."""

    def __init__(self) -> None:
        self._open = 0

    def open(self, shared: socket.socket) -> Lane | None:
        """A lane like the shared socket, on its port; None where there is none to be had."""
        if self._open == MAX_LANES:
            return None
        sock = socket.socket(shared.family, socket.SOCK_DGRAM)
        try:
            _liken(sock, shared)
            # Nobody else can join the port by it: both have to ask for it before they bind, and only lanes do.
            for each in (shared, sock):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(shared.getsockname())
            sock.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, _PROGRAM)
        except OSError:
            sock.close()
            return None
        self._open += 1
        return Lane(sock)

    def close(self, lane: Lane) -> None:
        """The viewer shares again, or has left."""
        lane.socket.close()
        self._open -= 1


def _liken(sock: socket.socket, shared: socket.socket) -> None:
    sock.setblocking(False)
    # The kernel tells twice what it was asked for: socket(7).
    room = shared.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    options = [(socket.IPPROTO_IP, socket.IP_TOS)]
    if shared.family == socket.AF_INET6:
        options = [(socket.IPPROTO_IPV6, option) for option in (socket.IPV6_TCLASS, socket.IPV6_V6ONLY)]
    for level, option in options:
        sock.setsockopt(level, option, shared.getsockopt(level, option))


def _queued(sock: socket.socket) -> int:
    waiting: int = struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return waiting
