"""The engine in plain Python: the readable specification, and the oracle the C engine is compared with.

One epoll descriptor watches all sockets, so the event loop has one thing to wait for. `step` reads at most
`READ_BUDGET` datagrams a socket, gathers those of one source into a burst, and fans it out.
"""

import select
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from random import Random, SystemRandom
from socket import socket

from media_relay.engine import (
    MAX_MEDIA_BYTES,
    MAX_OTHER_BYTES,
    Datagram,
    EngineEvent,
    EngineLeg,
    GroupSpec,
    Inlet,
    KeyframeNeeded,
    KeyframeSeen,
    LegState,
    LegUnreachable,
    OutletState,
    PacketsMissing,
    SourceStarted,
    SourceState,
    Totals,
)
from media_relay.engine.lanes import Lanes
from media_relay.engine.outgoing import CATCH_UP_INTERVAL, Outgoing, Trickle
from media_relay.engine.queue import ERRORS_INTERVAL, TELL_INTERVAL, EventQueue
from media_relay.engine.security import Unprotection
from media_relay.engine.stream import Packet, Stream
from media_relay.sockets import unreachable
from protocols.control import MediaKind
from protocols.net import Address
from protocols.rtp.classify import classify
from protocols.rtp.packet import HEADER_BYTES
from protocols.srtp import Profile

READ_BUDGET = 64
"""Datagrams read from one socket before the others get their turn."""
CATCH_UP_LEGS = 16
"""Legs given a burst of the cached picture at a time, so that a rush of viewers does not hold up the live ones."""
_READ = select.EPOLLIN
_ERROR = select.EPOLLERR

StreamKey = tuple[MediaKind, int]


class _Leg:
    __slots__ = ("heard_at", "octets_received", "outgoing", "received", "security", "sent", "spec")

    def __init__(self, spec: EngineLeg) -> None:
        self.spec = spec
        self.outgoing: dict[StreamKey, Outgoing] = {}
        self.heard_at: float | None = None
        self.received = 0
        self.octets_received = 0
        self.sent = Totals()
        """By streams that a new negotiation took away."""
        self.security: dict[StreamKey, Unprotection] = {}
        """Outlives the inlets it is for: what was replayed stays known."""

    def set_keys(self, inlet: Inlet) -> None:
        """Be ready to decrypt what comes in there; the same keys again change nothing."""
        key = (inlet.medium, inlet.encoding)
        if inlet.security is not None and (key not in self.security or self.security[key].keys != inlet.security):
            self.security[key] = Unprotection(inlet.security, MAX_MEDIA_BYTES)

    def add_to(self, totals: Totals) -> None:
        """Count the leg in."""
        totals.packets_in += self.received
        totals.octets_in += self.octets_received
        for stream in self.outgoing.values():
            stream.add_to(totals)
        sent = self.sent
        totals.packets_out += sent.packets_out
        totals.octets_out += sent.octets_out
        totals.no_room += sent.no_room
        totals.resent += sent.resent


class _Group:
    __slots__ = (
        *("_allowance", "_allowed_at", "first", "keyframe_from", "legs", "missing_from"),
        *("over_rate", "sinks", "source", "spec", "started", "streams"),
    )

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self.legs: dict[str, _Leg] = {}
        self.streams: dict[StreamKey, Stream] = {}
        self.sinks: dict[StreamKey, list[Outgoing]] = {}
        self.source: dict[StreamKey, str] = {}
        self.first: dict[StreamKey, int] = {}
        """Which sink a burst starts with: the one that lost out when the socket was last full."""
        self.started: set[tuple[str, MediaKind]] = set()
        self.missing_from: dict[StreamKey, float] = {}
        """When `PacketsMissing` is told again."""
        self.keyframe_from: dict[StreamKey, float] = {}
        """The same of `KeyframeSeen`."""
        self._allowance = spec.source_bytes_per_second
        self._allowed_at = 0.0
        self.over_rate = 0

    def allows(self, size: int, now: float) -> bool:
        """A token bucket one second deep: what a source sends is multiplied by its viewers, so it is bounded here."""
        rate = self.spec.source_bytes_per_second
        self._allowance = min(rate, self._allowance + (now - self._allowed_at) * rate)
        self._allowed_at = now
        if self._allowance < size:
            self.over_rate += 1
            return False
        self._allowance -= size
        return True

    def charge(self, size: int) -> None:
        """What the source made us send beside its own packets."""
        self._allowance -= size


class PlainEngine:
    """Implements `media_relay.engine.Engine` on the caller's thread."""

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or SystemRandom()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket] = {}
        self._groups: dict[str, _Group] = {}
        self._peers: dict[tuple[int, Address], tuple[_Group, _Leg, Inlet]] = {}
        self._buffer = memoryview(bytearray(MAX_MEDIA_BYTES + 1))
        self._catching: deque[tuple[str, Outgoing]] = deque()
        self._catch_up_at = 0.0
        self._trickle = Trickle()
        self._lanes = Lanes()
        self._events = EventQueue()
        self._errors_from: dict[int, float] = {}
        """When a socket's ICMP errors are told again."""
        self._past = Totals()
        """Of legs and groups that are gone."""

    def close(self) -> None:
        """See Engine."""
        self._epoll.close()

    def fileno(self) -> int:
        """See Engine."""
        return self._epoll.fileno()

    def unable(self, profile: Profile) -> str | None:
        """See Engine."""
        return None

    def watch(self, sock: socket) -> None:
        """See Engine."""
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), _READ)

    def unwatch(self, sock: socket) -> None:
        """See Engine."""
        if self._sockets.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
            self._errors_from.pop(sock.fileno(), None)

    def set_group(self, spec: GroupSpec) -> None:
        """See Engine."""
        self._groups.setdefault(spec.group_id, _Group(spec))

    def set_leg(self, leg: EngineLeg, now: float) -> None:
        """See Engine."""
        group = self._groups.get(leg.group_id)
        if group is None:
            return
        state = group.legs.get(leg.leg_id)
        if state is None:
            state = group.legs[leg.leg_id] = _Leg(leg)
        self._forget_peers(state)
        state.spec = leg
        for inlet in leg.inlets:
            state.set_keys(inlet)
            self._peers[inlet.socket.fileno(), inlet.peer] = (group, state, inlet)
            if inlet.forward:
                self._set_source(group, leg.leg_id, inlet, now)
        kept = {(outlet.medium, outlet.encoding) for outlet in leg.outlets}
        for key in [key for key in state.outgoing if key not in kept]:
            gone = state.outgoing.pop(key)
            gone.add_to(state.sent)
            self._drop_outgoing(group, key, gone)
        for outlet in leg.outlets:
            key = (outlet.medium, outlet.encoding)
            outgoing = state.outgoing.get(key)
            if outgoing is None:
                outgoing = Outgoing(outlet, group.streams.get(key), self._random, self._trickle, self._lanes)
                state.outgoing[key] = outgoing
                group.sinks.setdefault(key, []).append(outgoing)
                outgoing.start(now)
            else:
                outgoing.change(outlet, now)
            self._started(leg.group_id, outgoing)

    def remove(self, group_id: str, leg_id: str | None = None) -> None:
        """See Engine."""
        group = self._groups.get(group_id)
        if group is None:
            return
        for name in [leg_id] if leg_id is not None else list(group.legs):
            leg = group.legs.pop(name, None)
            if leg is not None:
                leg.add_to(self._past)
                self._forget_peers(leg)
                group.started = {started for started in group.started if started[0] != name}
                for key, outgoing in leg.outgoing.items():
                    self._drop_outgoing(group, key, outgoing)
        if leg_id is None:
            self._past.over_rate += group.over_rate
            del self._groups[group_id]

    def inject(self, group_id: str, medium: MediaKind, encoding: int, burst: Sequence[bytes], now: float) -> None:
        """See Engine."""
        group = self._groups.get(group_id)
        key = (medium, encoding)
        stream = group.streams.get(key) if group is not None else None
        if group is None or stream is None:
            return
        packets: list[Packet] = []
        keyframe_at: int | None = None
        for datagram in burst:
            added, keyframe = stream.place(datagram, now)
            packets += added
            for packet in added[:-1]:
                group.charge(len(packet.payload) + HEADER_BYTES)
            if keyframe:
                keyframe_at = added[0].sequence
        if not packets:
            return
        source = group.source[key]
        if (source, medium) not in group.started:
            group.started.add((source, medium))
            self._events.put(SourceStarted(group_id, source, medium))
        if keyframe_at is not None and now >= group.keyframe_from.get(key, now):
            group.keyframe_from[key] = now + TELL_INTERVAL
            self._events.put(KeyframeSeen(group_id))
        if now >= group.missing_from.get(key, now) and (missing := stream.take_missing()):
            group.missing_from[key] = now + TELL_INTERVAL
            self._events.put(PacketsMissing(group_id, medium, missing))
        sinks = group.sinks.get(key, ())
        first = group.first.get(key, 0)
        count = len(sinks)
        short: int | None = None
        for i in range(count):
            index = (first + i) % count
            if not sinks[index].deliver(packets, keyframe_at, now) and short is None:
                short = index
        if short is not None:
            group.first[key] = short

    def resend(self, group_id: str, leg_id: str, medium: MediaKind, lost: Sequence[int], now: float) -> int:
        """See Engine."""
        outgoing = self._outgoing(group_id, leg_id, medium)
        return outgoing.resend(lost, now) if outgoing is not None else 0

    def step(self, now: float) -> float | None:
        """See Engine."""
        for fd, flags in self._epoll.poll(0):
            sock = self._sockets.get(fd)
            if sock is None:
                continue
            if flags & _ERROR:
                self._read_errors(sock, now)
            if flags & _READ:
                self._read(sock, now)
        return self._catch_up(now)

    def events(self) -> list[EngineEvent]:
        """See Engine."""
        return self._events.take()

    def source(self, group_id: str, medium: MediaKind) -> SourceState | None:
        """See Engine."""
        group = self._groups.get(group_id)
        stream = group.streams.get((medium, 0)) if group is not None else None
        return stream.state() if stream is not None else None

    def outlet(self, group_id: str, leg_id: str, medium: MediaKind) -> OutletState | None:
        """See Engine."""
        outgoing = self._outgoing(group_id, leg_id, medium)
        return outgoing.report if outgoing is not None else None

    def leg(self, group_id: str, leg_id: str) -> LegState | None:
        """See Engine."""
        group = self._groups.get(group_id)
        leg = group.legs.get(leg_id) if group is not None else None
        if leg is None:
            return None
        out = Totals()
        leg.add_to(out)
        return LegState(leg.heard_at, leg.received, out.packets_out, out.octets_out, leg.octets_received)

    def totals(self) -> Totals:
        """See Engine."""
        totals = replace(self._past)
        for group in self._groups.values():
            totals.over_rate += group.over_rate
            totals.cache_bytes += sum(stream.cache.size for stream in group.streams.values())
            for leg in group.legs.values():
                leg.add_to(totals)
        return totals

    def _read_errors(self, sock: socket, now: float) -> None:
        addresses = unreachable(sock)
        if now < self._errors_from.get(sock.fileno(), now):
            return
        for address in addresses:
            self._errors_from[sock.fileno()] = now + ERRORS_INTERVAL
            known = self._peers.get((sock.fileno(), address))
            self._events.put(LegUnreachable(sock, address, known[1].spec.leg_id if known is not None else ""))

    def _read(self, sock: socket, now: float) -> None:
        fd = sock.fileno()
        burst: list[bytes] = []
        sender: tuple[_Group, Inlet] | None = None
        for _ in range(READ_BUDGET):
            try:
                size, (host, port, *_) = sock.recvfrom_into(self._buffer)
            except OSError:  # nothing left, or a pending ICMP error that the error queue tells apart
                break
            if size > MAX_MEDIA_BYTES:
                continue
            data = bytes(self._buffer[:size])
            source = Address(host, port)
            peer = self._peers.get((fd, source))
            if peer is None or classify(data) != "rtp":
                if size <= MAX_OTHER_BYTES:
                    self._events.put(Datagram(sock, data, source))
                continue
            group, leg, inlet = peer
            if inlet.security is not None:
                plain = leg.security[inlet.medium, inlet.encoding].apply(data)
                if plain is None:
                    self._past.unauthentic += 1
                    continue
                data = plain
            leg.heard_at = now
            leg.received += 1
            leg.octets_received += size
            if not inlet.forward or not group.allows(size, now):
                continue
            if sender is not None and sender != (group, inlet):
                self.inject(sender[0].spec.group_id, sender[1].medium, sender[1].encoding, burst, now)
                burst = []
            sender = (group, inlet)
            burst.append(data)
        if sender is not None:
            self.inject(sender[0].spec.group_id, sender[1].medium, sender[1].encoding, burst, now)

    def _catch_up(self, now: float) -> float | None:
        if not self._catching:
            return None
        if now >= self._catch_up_at:
            for _ in range(min(CATCH_UP_LEGS, len(self._catching))):
                group_id, outgoing = self._catching.popleft()
                outgoing.catch_up(now)
                self._started(group_id, outgoing)
            self._catch_up_at = now + CATCH_UP_INTERVAL
        return self._catch_up_at if self._catching else None

    def _set_source(self, group: _Group, leg_id: str, inlet: Inlet, now: float) -> None:
        key = (inlet.medium, inlet.encoding)
        stream = group.streams.get(key)
        same = group.source.get(key) == leg_id
        group.source[key] = leg_id
        if stream is not None and (stream.clock_rate, stream.inlet.codec) == (inlet.clock_rate, inlet.codec):
            if not same:
                stream.source_changed(inlet)
            else:
                stream.inlet = inlet
            return
        group.streams[key] = stream = Stream(inlet, group.spec.cache_seconds, group.spec.cache_bytes)
        for outgoing in group.sinks.get(key, ()):
            outgoing.stream = stream
            outgoing.start(now)
            self._started(group.spec.group_id, outgoing)

    def _started(self, group_id: str, outgoing: Outgoing) -> None:
        if outgoing.state == "catching" and (group_id, outgoing) not in self._catching:
            self._catching.append((group_id, outgoing))
        elif outgoing.state == "waiting":
            self._events.put(KeyframeNeeded(group_id))

    def _forget_peers(self, leg: _Leg) -> None:
        for inlet in leg.spec.inlets:
            known = self._peers.get((inlet.socket.fileno(), inlet.peer))
            if known is not None and known[1] is leg:
                del self._peers[inlet.socket.fileno(), inlet.peer]

    def _drop_outgoing(self, group: _Group, key: StreamKey, outgoing: Outgoing) -> None:
        group.sinks[key].remove(outgoing)
        outgoing.close()
        if (group.spec.group_id, outgoing) in self._catching:
            self._catching.remove((group.spec.group_id, outgoing))

    def _outgoing(self, group_id: str, leg_id: str, medium: MediaKind) -> Outgoing | None:
        group = self._groups.get(group_id)
        leg = group.legs.get(leg_id) if group is not None else None
        return leg.outgoing.get((medium, 0)) if leg is not None else None
