"""Connections: TCP, TLS, WebSocket and secure WebSocket (RFC 3261 section 18, RFC 7118), each with its time limits.

Every stage has a deadline in all, however busily bytes trickle in: TLS handshake, HTTP upgrade, first message, each
later message once begun; between messages the idle timeout runs.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from protocols.net import Address, Flow, Transport
from protocols.sip.errors import SipParseError
from protocols.sip.framing import Bound, KeepAlive, StreamFramer, idle_pieces
from protocols.sip.websocket import WebSocketFramer
from sip_app.metrics import limited
from sip_app.transport.limits import Limits, Sink

SECURE = frozenset(("tls", "wss"))
WEB = frozenset(("ws", "wss"))
MISSED_PINGS = 3
"""Pings a WebSocket client may leave unanswered before it counts as gone."""
FLOW_SLACK = 30.0
"""Seconds a keep-alive may be late (RFC 5626 section 4.4.1 lets clients spread theirs)."""
_BOUNDS: dict[Bound, str] = {
    "message": "sip.max_message_bytes",
    "headers": "sip.max_header_bytes",
    "fragments": "websocket.max_fragments",
}


class Stage(Enum):
    """How far a connection has come."""

    HANDSHAKE = auto()
    UPGRADE = auto()
    FIRST_MESSAGE = auto()
    OPEN = auto()


class Owner(Interface):
    """Who holds the connections."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    sink: Sink

    def accepted(self, connection: "Connection", transport: Transport, local: Address, remote: Address) -> Flow | None:
        """Number a new connection; None when there are too many."""
        ...

    def closed(self, flow: Flow) -> None:
        """A connection ended or could not be made."""
        ...


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One connection: accepted if `flow` is None, else dialled, and then `proves(certificate)` judges the server."""

    transport: Any
    """Twisted's interfaces are zope's, which mypy cannot read."""

    def __init__(
        self,
        owner: Owner,
        kind: Transport,
        flow: Flow | None = None,
        proves: Callable[[Any], bool] | None = None,
    ) -> None:
        limits = owner.limits
        self._owner = owner
        self._kind = kind
        self.flow = flow
        self._dialled = flow is not None
        self._proves = proves
        self._framer: StreamFramer | WebSocketFramer = (
            WebSocketFramer(limits.message_bytes, limits.origins, limits.fragments)
            if kind in WEB
            else StreamFramer(limits.message_bytes, limits.header_bytes)
        )
        self._stage = Stage.HANDSHAKE
        self._idle = limits.idle_timeout
        self._idle_limit = "sip.connection_idle_timeout"
        self._mid_message = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._second = 0.0
        self._idle_pieces = 0
        self._queued: list[bytes] = []
        self._unsent = 0
        self._paused = False
        self._open = False
        self._cut = False

    # Twisted's side

    def connectionMade(self) -> None:  # noqa: N802 (Twisted's name)
        transport = self.transport
        transport.setTcpNoDelay(True)
        if not self._dialled:
            peer, host = transport.getPeer(), transport.getHost()
            local, remote = Address(host.host, host.port), Address(peer.host, peer.port)
            self.flow = self._owner.accepted(self, self._kind, local, remote)
            if self.flow is None:
                transport.abortConnection()
                return
        transport.registerProducer(self, True)
        if self._kind in SECURE:
            self._set_deadline(self._owner.limits.handshake_timeout)
        else:
            self._established()

    def handshakeCompleted(self) -> None:  # noqa: N802 (Twisted's name)
        """TLS stands (Twisted's `IHandshakeListener`)."""
        if self.flow is None:
            return
        if self._proves is not None and not self._proves(self.transport.getPeerCertificate()):
            self.close()
            return
        self._established()

    def _established(self) -> None:
        self._open = True
        if self._dialled:
            self._enter(Stage.OPEN)
            for data in self._queued:
                self.send(data)
            self._queued.clear()
        else:
            self._enter(Stage.FIRST_MESSAGE if self._framer.ready else Stage.UPGRADE)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        limits = self._owner.limits
        if stage is Stage.UPGRADE:
            self._set_deadline(limits.upgrade_timeout)
        elif stage is Stage.FIRST_MESSAGE:
            self._set_deadline(limits.first_message_timeout)
            if isinstance(self._framer, WebSocketFramer):
                self._heard = self._owner.loop.time()
                self._pinger = self._owner.loop.call_later(limits.ping_interval, self._ping, self._framer)
        else:
            self._set_deadline(self._idle)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's name)
        if self.flow is None or self._cut:
            return
        framer = self._framer
        try:
            pieces = framer.receive(data)
        except SipParseError:
            self._count_excess()
            self.close()
            return
        if (idle := idle_pieces(pieces)) and self._too_lively(idle):
            limited("sip.keep_alives_per_second")
            self.close()
            return
        if replies := framer.replies():
            self._write(replies)
        if self._stage is Stage.UPGRADE and framer.ready:
            self._enter(Stage.FIRST_MESSAGE)
        for piece in pieces:
            if not isinstance(piece, KeepAlive):
                if self._stage is Stage.FIRST_MESSAGE:
                    self._stage = Stage.OPEN
                self._owner.sink.data_received(piece, self.flow)
        if framer.finished:
            self._count_excess()
            self._finish()
        elif self._stage is Stage.OPEN:
            self._keep_time(pieces)
        if pieces:
            self._heard = self._owner.loop.time()

    def _count_excess(self) -> None:
        """Too large a message: there is no telling where the next begins, so that no 513 is sent."""
        if self._framer.exceeded is not None:
            limited(_BOUNDS[self._framer.exceeded])

    def _too_lively(self, idle: int) -> bool:
        """Count what says nothing but that the peer is alive: reading it costs as much as a message."""
        now = self._owner.loop.time()
        if now - self._second >= 1.0:
            self._second, self._idle_pieces = now, 0
        self._idle_pieces += idle
        return self._idle_pieces > self._owner.limits.keep_alives

    def _keep_time(self, pieces: Sequence[bytes | KeepAlive]) -> None:
        """The deadline after some bytes, which completed these pieces; a keep-alive gives a message no more time."""
        if self._framer.begun:
            if not self._mid_message or any(not isinstance(piece, KeepAlive) for piece in pieces):
                self._set_deadline(self._owner.limits.message_timeout)
            self._mid_message = True
        elif pieces:
            self._mid_message = False
            self._set_deadline(self._idle)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008, N802 (Twisted's)
        self._open = False
        for timer in (self._timer, self._pinger):
            if timer is not None:
                timer.cancel()
        self._timer = self._pinger = None
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

    # Our side

    def send(self, message: bytes) -> None:
        """Write a message, or keep it until the connection stands; a peer that does not read is cut off."""
        if self._open:
            self._write(self._framer.wrap(message))
        elif self._within_bounds(message):
            self._queued.append(message)

    def _write(self, data: bytes) -> None:
        if not self._paused or self._within_bounds(data):
            self.transport.write(data)

    def _within_bounds(self, data: bytes) -> bool:
        if self._cut:
            return False
        self._unsent += len(data)
        if self._unsent <= self._owner.limits.unsent_bytes:
            return True
        limited("sip.max_unsent_bytes")
        self.close()
        return False

    def keep(self, seconds: float) -> None:
        """Expect a keep-alive at least this often from now on (RFC 5626 Flow-Timer)."""
        self._idle, self._idle_limit = min(
            (self._owner.limits.idle_timeout, "sip.connection_idle_timeout"), (seconds + FLOW_SLACK, "sip.flow_timer")
        )
        self._set_deadline(self._idle)

    def close(self) -> None:
        """Cut the connection at once."""
        self._cut = True
        if self.transport is not None:
            self.transport.abortConnection()

    def _finish(self) -> None:
        """Close once what was written is sent; the deadline still runs."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _ping(self, framer: WebSocketFramer) -> None:
        silent = self._owner.loop.time() - self._heard
        interval = self._owner.limits.ping_interval
        if silent >= MISSED_PINGS * interval:
            limited("websocket.ping_interval")
            self.close()
            return
        if silent >= interval:
            self._write(framer.ping())
        self._pinger = self._owner.loop.call_later(interval, self._ping, framer)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._owner.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._owner.loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._owner.loop.time() < self._deadline:
            self._timer = self._owner.loop.call_at(self._deadline, self._check_deadline)
            return
        limited(self._exceeded())
        self.close()

    def _exceeded(self) -> str:
        """The setting whose time is up."""
        match self._stage:
            case Stage.HANDSHAKE:
                return "tls.handshake_timeout"
            case Stage.UPGRADE:
                return "websocket.upgrade_timeout"
            case Stage.FIRST_MESSAGE:
                return "sip.connection_first_message_timeout"
        return "sip.message_timeout" if self._mid_message else self._idle_limit


class Acceptor(ServerFactory):
    """Makes the connections of one listener."""

    noisy = False

    def __init__(self, owner: Owner, kind: Transport) -> None:
        self._owner = owner
        self._kind = kind

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 (Twisted's name)
        return Connection(self._owner, self._kind)


class Dialler(ClientFactory):
    """Hands one dialled connection to Twisted; `failed` is called if it cannot be made."""

    noisy = False

    def __init__(self, connection: Connection, failed: Callable[[], None]) -> None:
        self._connection = connection
        self._failed = failed

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 (Twisted's name)
        return self._connection

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:  # noqa: N802 (Twisted's name)
        self._failed()
