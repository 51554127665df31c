"""The SIP sockets: a UDP listener and TCP connections in and out (RFC 3261 section 18, RFC 5626 keep-alives).

The only module of the service that knows Twisted. A connection is a `Flow` with a number of its own; whatever is sent
over a flow whose connection is gone is lost, and the sink is told by `flow_closed`.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any
from typing import Protocol as Interface

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, ServerFactory
from twisted.python.failure import Failure

from protocols.net import Address, Flow, bracketed
from protocols.sip.errors import SipParseError
from protocols.sip.framing import KeepAlive, StreamFramer

MAX_UDP_BYTES = 65_535
MAX_KNOWN_PEERS = 4_096
"""UDP peers whose Flow value is kept to be used again."""
MAX_UNSENT_BYTES = 1_000_000
"""Bytes queued for one peer that does not read before its connection is cut."""
CONNECT_TIMEOUT = 5.0
UDP_BUFFER_BYTES = 4_194_304
_MAPPED = "::ffff:"


class Sink(Interface):
    """Who gets what the sockets receive."""

    def data_received(self, data: bytes, flow: Flow) -> None:
        """One message, framed but not parsed."""
        ...

    def flow_closed(self, flow: Flow) -> None:
        """The connection is gone, could not be made, or a datagram could not be sent."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may make the sockets hold: bytes a message, connections, seconds of silence."""

    message_bytes: int = 65_535
    connections: int = 1_000
    connections_per_address: int = 100
    idle_timeout: float = 3_700.0
    first_message_timeout: float = 15.0


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._flows: dict[tuple[str, int], Flow] = {}
        self.local = Address("", 0)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:  # noqa: N802 (Twisted's name)
        flow = self._flows.get(addr)
        if flow is None:
            if len(self._flows) >= MAX_KNOWN_PEERS:
                self._flows.clear()
            flow = self._flows[addr] = Flow("udp", self.local, Address(addr[0].removeprefix(_MAPPED), addr[1]))
        self._sink.data_received(datagram, flow)


class _Stream(Protocol):
    """One TCP connection."""

    transport: Any
    """Twisted's interfaces are zope's, which mypy cannot read."""

    def __init__(self, owner: "Transports", outgoing: Flow | None = None) -> None:
        self._owner = owner
        self._framer = StreamFramer(owner.limits.message_bytes)
        self._outgoing = outgoing
        self.flow: Flow | None = outgoing
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._queued: list[bytes] = []
        self._unsent = 0
        self._paused = False
        self._open = False

    def connectionMade(self) -> None:  # noqa: N802 (Twisted's name)
        transport = self.transport
        transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._open = True
        if self._outgoing is None:
            peer, host = transport.getPeer(), transport.getHost()
            self.flow = self._owner.accepted(self, Address(host.host, host.port), Address(peer.host, peer.port))
            if self.flow is None:
                transport.abortConnection()
                return
        limits = self._owner.limits
        self._set_deadline(limits.first_message_timeout if self._outgoing is None else limits.idle_timeout)
        for data in self._queued:
            self.send(data)
        self._queued.clear()

    def send(self, data: bytes) -> None:
        """Write, or keep until the connection stands; a peer that does not read is cut off."""
        if self._paused or not self._open:
            self._unsent += len(data)
            if self._unsent > MAX_UNSENT_BYTES:
                self.close()
                return
        if self._open:
            self.transport.write(data)
        else:
            self._queued.append(data)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's name)
        if self.flow is None:
            return
        try:
            pieces = self._framer.receive(data)
        except SipParseError:
            self.close()
            return
        if pieces:
            self._set_deadline(self._owner.limits.idle_timeout)
        for piece in pieces:
            if isinstance(piece, KeepAlive):
                if piece is KeepAlive.PING:
                    self.send(KeepAlive.PONG.value)
            else:
                self._owner.sink.data_received(piece, self.flow)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._owner.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._owner.loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._owner.loop.time() >= self._deadline:
            self.close()
        else:
            self._timer = self._owner.loop.call_at(self._deadline, self._check_deadline)

    def close(self) -> None:
        """Cut the connection at once."""
        if self._open:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008, N802 (Twisted's)
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.flow is not None:
            self._owner.closed(self.flow)

    # IPushProducer: Twisted tells when its write buffer fills and drains.

    def pauseProducing(self) -> None:  # noqa: N802 (Twisted's name)
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802 (Twisted's name)
        self._paused = False
        self._unsent = 0

    def stopProducing(self) -> None:  # noqa: N802 (Twisted's name)
        self._paused = True


class _Acceptor(ServerFactory):
    noisy = False

    def __init__(self, owner: "Transports") -> None:
        self._owner = owner

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 (Twisted's name)
        return _Stream(self._owner)


class _Dialler(ClientFactory):
    noisy = False

    def __init__(self, stream: _Stream, failed: Callable[[], None]) -> None:
        self._stream = stream
        self._failed = failed

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 (Twisted's name)
        return self._stream

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:  # noqa: N802 (Twisted's name)
        self._failed()


def _taken(error: CannotListenError) -> OSError:
    """Twisted's refusal to bind, which is no OSError, as one that names the address."""
    address = bracketed(error.interface)
    return OSError(error.socketError.errno, f"cannot listen on {address}:{error.port}: {error.socketError.strerror}")


class Transports:
    """The sockets of one SIP endpoint. `bound` maps each transport to the address it listens on."""

    def __init__(self, sink: Sink, reactor: AsyncioSelectorReactor, limits: Limits, dscp: int = 24) -> None:
        self.sink = sink
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.bound: dict[str, Address] = {}
        self._reactor = reactor
        self._dscp = dscp
        self._datagrams = _Datagrams(sink)
        self._streams: dict[int, _Stream] = {}
        self._ids = count(1)
        self._closing: list[Any] = []
        self._mapped = False
        self._socket: socket.socket

    def listen(self, host: str, port: int, *, tcp: bool) -> None:
        """Bind UDP and, if wanted, TCP to one address; port 0 takes one that is free for both. OSError if taken."""
        for attempt in range(20):
            listener = None
            try:
                if tcp:
                    listener = self._reactor.listenTCP(port, _Acceptor(self), backlog=512, interface=host)
                taken = listener.getHost().port if listener else port
                udp = self._reactor.listenUDP(taken, self._datagrams, interface=host, maxPacketSize=MAX_UDP_BYTES)
            except CannotListenError as error:
                if listener is not None:
                    listener.stopListening()
                if port or attempt == 19:
                    raise _taken(error) from error
                continue
            if listener is not None:
                self._closing.append(listener)
                self.bound["tcp"] = Address(host, listener.getHost().port)
                self._mark(listener.socket)
            self._closing.append(udp)
            self.bound["udp"] = self._datagrams.local = Address(host, udp.getHost().port)
            self._mapped = host == "::"
            self._socket = udp.socket  # written to directly: Twisted's write checks each address anew
            udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER_BYTES)
            self._mark(udp.socket)
            return

    def _mark(self, handle: socket.socket) -> None:
        if handle.family == socket.AF_INET6:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self._dscp << 2)
        else:
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._dscp << 2)

    def send(self, data: bytes, flow: Flow) -> bool:
        """Send one message over its flow. False if it cannot be: the caller must count the flow as failed."""
        if flow.transport == "udp":
            host, port = flow.remote
            if self._mapped and ":" not in host:
                host = _MAPPED + host
            try:
                self._socket.sendto(data, (host, port))
            except BlockingIOError:
                return True  # the kernel's queue is full: lost like any datagram
            except (OSError, OverflowError):
                return False
            return True
        stream = self._streams.get(flow.id)
        if stream is None:
            return False
        stream.send(data)
        return True

    def alive(self, flow: Flow) -> bool:
        """True if something sent over this flow can arrive: a connection that stands, or our own UDP socket."""
        if flow.transport == "udp":
            return flow.local.port == self._datagrams.local.port
        stream = self._streams.get(flow.id)
        return stream is not None and stream.flow == flow

    def connect(self, remote: Address) -> Flow:
        """A TCP flow to `remote`: one that stands already, else a new one (what is sent waits for it)."""
        for stream in self._streams.values():
            if stream.flow is not None and stream.flow.remote == remote:
                return stream.flow
        local = self.bound.get("tcp", self.bound["udp"])
        flow = Flow("tcp", local, remote, next(self._ids))
        if len(self._streams) >= self.limits.connections:
            self.loop.call_soon(self.sink.flow_closed, flow)
            return flow
        stream = self._streams[flow.id] = _Stream(self, flow)
        dialler = _Dialler(stream, lambda: self.closed(flow))
        self._reactor.connectTCP(remote.host, remote.port, dialler, timeout=CONNECT_TIMEOUT)
        return flow

    def accepted(self, stream: _Stream, local: Address, remote: Address) -> Flow | None:
        """Number a new connection; None when there are too many, altogether or from that address."""
        if len(self._streams) >= self.limits.connections:
            return None
        local, remote = (Address(host.removeprefix(_MAPPED), port) for host, port in (local, remote))
        flows = (known.flow for known in self._streams.values())
        if sum(1 for flow in flows if flow and flow.remote.host == remote.host) >= self.limits.connections_per_address:
            return None
        flow = Flow("tcp", local, remote, next(self._ids))
        self._streams[flow.id] = stream
        return flow

    def closed(self, flow: Flow) -> None:
        """A connection ended or could not be made."""
        if self._streams.pop(flow.id, None) is not None:
            self.sink.flow_closed(flow)

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        for stream in list(self._streams.values()):
            stream.close()
        waiting = [port.stopListening() for port in self._closing]
        self._closing.clear()
        for deferred in waiting:
            if deferred is not None:
                await deferred.asFuture(self.loop)
