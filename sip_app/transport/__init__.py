"""The SIP sockets: UDP, TCP, TLS and WebSocket, in and out, on IPv4 and IPv6 (RFC 3261 section 18, RFC 7118).

`listening` binds, `datagrams` is UDP with its STUN keep-alives, `streams` the connections, `tls` the certificates,
`limits` what strangers may make all of them hold. Twisted ends here. A connection is a `Flow` with a number of its own;
whatever is sent over a flow whose connection is gone is lost, and the sink is told by `flow_closed`.
"""

import asyncio
import socket
from collections import Counter
from itertools import count, zip_longest
from typing import Any

import structlog
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.protocols.tls import TLSMemoryBIOFactory

from protocols.net import Address, Flow, Transport
from provisioning.config import Config
from sip_app.access.guard import place_of
from sip_app.bounds import make_room
from sip_app.metrics import CONNECTIONS, limited
from sip_app.transport.datagrams import MAPPED, Datagrams
from sip_app.transport.limits import Limits, Sink
from sip_app.transport.listening import Listener, bound_pair, bound_socket
from sip_app.transport.streams import SECURE, Acceptor, Connection, Dialler
from sip_app.transport.tls import ServerCreator, TlsSettings

__all__ = ["Limits", "Listener", "Sink", "TlsSettings", "Transports"]

log = structlog.get_logger("sip_app.transport")

_MAX_KNOWN_LOCALS = 1_024
_MAX_INTENDED = 1_024
"""Flows nobody may ever use: the ways a request did not take."""
_REMOTE_KEY = tuple[Transport, Address, str]


class Transports:
    """The sockets of one SIP endpoint. `bound` maps each transport to the first address it listens on."""

    def __init__(
        self,
        sink: Sink,
        reactor: AsyncioSelectorReactor,
        limits: Limits,
        dscp: int = 24,
    ) -> None:
        self.sink = sink
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.bound: dict[str, Address] = {}
        self.listeners: list[Listener] = []
        self._reactor = reactor
        self._clock: Any = reactor
        self._dscp = dscp
        self._tls: TlsSettings | None = None
        self._creators: list[ServerCreator] = []
        self._datagrams: dict[Address, Datagrams] = {}
        self._connections: dict[int, Connection] = {}
        self._accepted: set[int] = set()
        self._strangers: dict[int, Flow] = {}
        """Accepted connections over which nobody has proven who he is, oldest first."""
        self._per_host: Counter[str] = Counter()
        self._dialled: dict[_REMOTE_KEY, Flow] = {}
        self._intended: dict[int, tuple[Flow, str, float]] = {}
        self._shown: dict[tuple[str, Address], Address] = {}
        self._ids = count(1)
        self._closing: list[Any] = []

    # Listening

    def open(self, config: Config) -> None:
        """Bind every configured listener. OSError if an address is taken, ValueError for an unusable certificate."""
        sip, web = config.sip, config.websocket
        hosts = [(sip.bind, sip.advertised_host), *zip_longest(sip.also_bind, sip.also_advertised)]
        names = [*config.domain_aliases, *(shown or host for host, shown in hosts)]
        self._tls = TlsSettings(config.tls, config.data_path, config.domain, names)
        for host, shown in hosts:
            only_v6 = len(hosts) > 1
            self.listen(host, sip.port, tcp=sip.tcp, shown=shown, only_v6=only_v6)
            wanted: dict[Transport, int | None] = {"tls": config.tls.port, "ws": web.port, "wss": web.secure_port}
            for transport, port in wanted.items():
                if port is not None:
                    self.listen_stream(transport, host, port, shown=shown, only_v6=only_v6)

    def reconfigure(self, config: Config) -> None:
        """Take the limits of a changed configuration, and read our certificate again: a broken one is not taken."""
        self.limits = Limits.of(config)
        if self._tls is None or not self._creators:
            return
        try:
            context = self._tls.server()
        except OSError as error:
            log.error("tls.certificate_kept", error=error.strerror)
            return
        for creator in self._creators:
            creator.context = context

    def listen(self, host: str, port: int, *, tcp: bool, shown: str | None = None, only_v6: bool = False) -> None:
        """Bind UDP and, if wanted, TCP to one address; port 0 takes one that is free for both. OSError if taken.

        `shown` is the host our messages show for it; `only_v6` keeps `::` from taking IPv4 too.
        """
        stream = None
        if tcp:
            udp, stream = bound_pair(host, port, self._dscp, only_v6=only_v6)
        else:
            udp = bound_socket(socket.SOCK_DGRAM, host, port, self._dscp, only_v6=only_v6)
        listener = self._listening("udp", udp, host, shown)
        self._datagrams[listener.local] = Datagrams(self.sink, udp, listener.local, self.loop)
        if stream is not None:
            self._accept("tcp", stream, host, shown)

    def listen_stream(
        self, transport: Transport, host: str, port: int, *, shown: str | None = None, only_v6: bool = False
    ) -> None:
        """Bind a listener for TLS or WebSocket. OSError if taken, ValueError if a certificate cannot be used."""
        stream = bound_socket(socket.SOCK_STREAM, host, port, self._dscp, only_v6=only_v6)
        self._accept(transport, stream, host, shown)

    def _accept(self, transport: Transport, stream: socket.socket, host: str, shown: str | None) -> None:
        factory: Any = Acceptor(self, transport)
        if transport in SECURE:
            if self._tls is None:
                raise ValueError(f"{transport} needs a certificate")
            creator: Any = ServerCreator(self._tls.server())
            self._creators.append(creator)
            factory = TLSMemoryBIOFactory(creator, False, factory, self._clock)
            factory.noisy = False
        self._listening(transport, stream, host, shown)
        self._closing.append(self._reactor.adoptStreamPort(stream.fileno(), stream.family, factory))
        stream.close()  # the reactor has a descriptor of its own

    def _listening(self, transport: Transport, handle: socket.socket, host: str, shown: str | None) -> Listener:
        local = Address(host, handle.getsockname()[1])
        listener = Listener(transport, local, Address(shown or host, local.port))
        self.listeners.append(listener)
        self.bound.setdefault(transport, local)
        return listener

    def shown(self, flow: Flow) -> Address:
        """Host and port our Via, Contact and Record-Route show to the peer of a flow."""
        key = flow.transport, flow.local
        known = self._shown.get(key)
        if known is None:
            if len(self._shown) >= _MAX_KNOWN_LOCALS:
                self._shown.clear()
            known = self._shown[key] = self._listener(flow.transport, flow.local, flow.remote.host).shown
        return known

    def _listener(self, transport: str, local: Address, remote: str) -> Listener:
        """The listener a flow belongs to: by its local address, else one of its transport and family."""
        same = [listener for listener in self.listeners if listener.transport == transport]
        for listener in same:
            if listener.local == local:
                return listener
        for listener in same:
            if listener.everywhere and listener.serves(local.host) and listener.local.port == local.port:
                return listener
        for listener in same or self.listeners:
            if listener.serves(remote):
                return listener
        return (same or self.listeners)[0]

    def reaches(self, host: str) -> bool:
        """True if a socket of ours can send to the address `host`."""
        return any(listener.serves(host) or listener.local.host == "::" for listener in self.listeners)

    def local(self, transport: Transport, remote: str) -> Address:
        """The address of ours that a new flow to the host `remote` has."""
        return self._listener(transport, Address("", 0), remote).local

    # Sending

    def send(self, data: bytes, flow: Flow) -> bool:
        """Send one message over its flow. False if it cannot be: the caller must count the flow as failed."""
        if flow.transport == "udp":
            datagrams = self._datagrams.get(flow.local)
            if datagrams is None:
                datagrams = self._datagrams[self.local("udp", flow.remote.host)]
            return datagrams.send(data, flow.remote)
        connection = self._connections.get(flow.id) or self._dial(flow)
        if connection is None:
            return False
        connection.send(data)
        return True

    def alive(self, flow: Flow) -> bool:
        """True if something sent over this flow can arrive: a connection that stands, or a UDP socket of ours."""
        if flow.transport == "udp":
            return flow.local in self._datagrams
        connection = self._connections.get(flow.id)
        return connection is not None and connection.flow == flow

    def udp_flow(self, remote: Address) -> Flow:
        """The flow of a datagram to `remote`."""
        return Flow("udp", self.local("udp", remote.host), remote)

    def connect(self, remote: Address) -> Flow:
        """A TCP flow to `remote`: one we dialled before, else a new one (what is sent waits for it)."""
        flow = self.intend("tcp", remote)
        self._dial(flow)
        return flow

    def intend(self, transport: Transport, remote: Address, name: str = "", timeout: float | None = None) -> Flow:
        """A flow to `remote` whose connection, unless we have one, is dialled when something is first sent over it.

        For TLS, `name` is the domain the server's certificate must be for. `timeout` is how many seconds the connection
        may take. One that a peer opened is never used: whoever shares its address could claim its port (RFC 5923
        section 9).
        """
        if transport == "udp":
            return self.udp_flow(remote)
        name = name if transport == "tls" else ""
        known = self._dialled.get((transport, remote, name))
        if known is not None:
            return known
        flow = Flow(transport, self.local(transport, remote.host), remote, next(self._ids))
        make_room(self._intended, _MAX_INTENDED)
        self._intended[flow.id] = (flow, name, timeout or self.limits.connect_timeout)
        return flow

    def _dial(self, flow: Flow) -> Connection | None:
        """The connection of an intended flow; None for any other, and when there are too many."""
        _, name, timeout = self._intended.pop(flow.id, (flow, "", 0.0))
        if not timeout:
            return None
        if len(self._connections) >= self.limits.connections and not self._give_way("sip.max_connections"):
            return None
        creator: Any = self._tls.client(name) if flow.transport == "tls" and self._tls is not None else None
        connection = Connection(self, flow.transport, flow, creator.proves if creator is not None else None)
        factory: Any = Dialler(connection, lambda: self.closed(flow))
        if creator is not None:
            factory = TLSMemoryBIOFactory(creator, True, factory, self._clock)
            factory.noisy = False
        self._hold(flow, connection)
        self._dialled[flow.transport, flow.remote, name] = flow
        self._reactor.connectTCP(flow.remote.host, flow.remote.port, factory, timeout=timeout)
        return connection

    def keep(self, flow: Flow, seconds: float) -> None:
        """Expect a keep-alive over this connection at least this often (RFC 5626 Flow-Timer)."""
        connection = self._connections.get(flow.id) if flow.reliable else None
        if connection is not None and connection.flow == flow:
            connection.keep(seconds)

    # Connections that come and go

    def accepted(self, connection: Connection, transport: Transport, local: Address, remote: Address) -> Flow | None:
        """Number a new connection; None when there are too many, in all, from that address, or a second from there."""
        local, remote = (Address(host.removeprefix(MAPPED), port) for host, port in (local, remote))
        if self._per_host[place_of(remote.host)] >= self.limits.connections_per_address:
            limited("sip.max_connections_per_address")
            return None
        flow = Flow(transport, local, remote, next(self._ids))
        if not self.sink.admits(flow):
            return None
        limit, share = self.limits.connections, self.limits.outgoing_share
        if len(self._connections) >= limit:
            exceeded = "sip.max_connections"
        elif len(self._accepted) >= limit - int(limit * share):
            exceeded = "sip.outgoing_share"
        else:
            exceeded = None
        if exceeded is not None and not self._give_way(exceeded):
            return None
        self._hold(flow, connection)
        self._accepted.add(flow.id)
        self._strangers[flow.id] = flow
        return flow

    def prove(self, flow: Flow) -> None:
        """Somebody has proven over this connection who he is: it gives way to nobody."""
        self._strangers.pop(flow.id, None)

    def _give_way(self, limit: str) -> bool:
        """Make room, as this limit is reached, for one more connection by cutting a stranger's, if there is one.

        Of the address that holds most: who takes all places by many connections has his own ones cut.
        """
        limited(limit)
        held = Counter(place_of(flow.remote.host) for flow in self._strangers.values())
        if not held:
            return False
        crowd, _ = held.most_common(1)[0]
        flow = next(flow for flow in self._strangers.values() if place_of(flow.remote.host) == crowd)
        connection = self._connections[flow.id]
        self._release(flow)
        connection.close()
        self.loop.call_soon(self.sink.flow_closed, flow)
        return True

    def _hold(self, flow: Flow, connection: Connection) -> None:
        self._connections[flow.id] = connection
        self._per_host[place_of(flow.remote.host)] += 1
        CONNECTIONS.labels(flow.transport).inc()

    def closed(self, flow: Flow) -> None:
        """A connection ended or could not be made."""
        if self._release(flow):
            self.sink.flow_closed(flow)

    def _release(self, flow: Flow) -> bool:
        """Hold a connection no longer; False if it was not held."""
        if self._connections.pop(flow.id, None) is None:
            return False
        self._accepted.discard(flow.id)
        self._strangers.pop(flow.id, None)
        CONNECTIONS.labels(flow.transport).dec()
        place = place_of(flow.remote.host)
        self._per_host[place] -= 1
        if not self._per_host[place]:
            del self._per_host[place]
        for key, dialled in list(self._dialled.items()):
            if dialled == flow:
                del self._dialled[key]
        return True

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        for connection in list(self._connections.values()):
            connection.close()
        waiting = [port.stopListening() for port in self._closing]
        self._closing.clear()
        for datagrams in self._datagrams.values():
            datagrams.close()
        for deferred in waiting:
            if deferred is not None:
                await deferred.asFuture(self.loop)
