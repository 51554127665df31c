"""The SIP sockets for UDP, and the STUN keep-alives that come to them (RFC 5626 section 4.4.2)."""

import asyncio
import socket
import struct

from aioice import stun

from protocols.net import Address, Flow
from sip_app.transport.limits import Sink

MAX_UDP_BYTES = 65_535
MAX_KNOWN_PEERS = 4_096
"""UDP peers whose Flow value is kept to be used again."""
MAX_STUN_BYTES = 128
"""A keep-alive has no attributes worth reading: longer ones are no keep-alives."""
MAGIC_COOKIE = b"\x21\x12\xa4\x42"
MAPPED = "::ffff:"
AT_ONCE = 64
"""Datagrams taken at one wake-up, before timers and connections have their turn."""


class Datagrams:
    """One UDP socket, read and written directly: Twisted's way costs 5 % more of a registration, and checks each
    address anew when it writes."""

    def __init__(self, sink: Sink, handle: socket.socket, local: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._flows: dict[tuple[str, int], Flow] = {}
        self.local = local
        self.handle = handle
        self._mapped = local.host == "::" and not handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        loop.add_reader(handle, self._readable)

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            try:
                datagram, source = self.handle.recvfrom(MAX_UDP_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of something sent before
            self._received(datagram, source[:2])

    def _received(self, datagram: bytes, addr: tuple[str, int]) -> None:
        flow = self._flows.get(addr)
        if flow is None:
            if len(self._flows) >= MAX_KNOWN_PEERS:
                self._flows.clear()
            flow = self._flows[addr] = Flow("udp", self.local, Address(addr[0].removeprefix(MAPPED), addr[1]))
        if not (datagram and datagram[0]):  # no SIP message starts with a zero, every STUN request does
            if self._sink.admits(flow) and (answer := stun_answer(datagram, flow.remote)) is not None:
                self.send(answer, flow.remote)
            return
        self._sink.data_received(datagram, flow)

    def close(self) -> None:
        """Close the socket; once more does nothing."""
        if self.handle.fileno() >= 0:
            self._loop.remove_reader(self.handle)
            self.handle.close()

    def send(self, data: bytes, remote: Address) -> bool:
        """Send one datagram; False if it cannot be sent at all."""
        host, port = remote
        if self._mapped and ":" not in host:
            host = MAPPED + host
        try:
            self.handle.sendto(data, (host, port))
        except BlockingIOError:
            return True  # the kernel's queue is full: lost like any datagram
        except (OSError, OverflowError):
            return False
        return True


def stun_answer(datagram: bytes, source: Address) -> bytes | None:
    """The answer to a STUN Binding request: the address it came from. None for anything else.

    At most 44 bytes to a request of at least 20, less than twice its size on the wire.
    """
    if not 20 <= len(datagram) <= MAX_STUN_BYTES or datagram[4:8] != MAGIC_COOKIE:
        return None
    try:
        request = stun.parse_message(datagram)
    except (ValueError, struct.error):
        return None
    if request.message_method != stun.Method.BINDING or request.message_class != stun.Class.REQUEST:
        return None
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
    answer.attributes["XOR-MAPPED-ADDRESS"] = (source.host, source.port)
    return bytes(answer)
