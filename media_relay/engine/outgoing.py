"""One outgoing stream: a leg's medium, from waiting for a keyframe over catching up to live, and its packets' headers.

A stream with keyframes starts with the cached picture: the packets since the last keyframe, paced, while live ones
wait in the history until this leg has caught up. A packet the socket has no room for is a loss like any on the
network: it keeps its number, so the viewer notices and may ask for it.
"""

import errno
from collections.abc import Iterable, Sequence
from random import Random
from struct import Struct
from typing import Literal

from media_relay.engine import MAX_MEDIA_BYTES, Outlet, OutletState, Totals
from media_relay.engine.lanes import Lane, Lanes
from media_relay.engine.security import Protection
from media_relay.engine.stream import Packet, Stream
from media_relay.numbering import HISTORY, LegNumbers

CATCH_UP_PACKETS = 16
"""Packets of the cached picture sent at once."""
CATCH_UP_INTERVAL = 0.005
"""Seconds between two such bursts: 30 Mbit/s of full packets, so that half a megabyte takes 0.14 s."""
REPLAY_INTERVAL = 1.0
"""Seconds until a leg that opens anew is given the cached picture again: half a megabyte for one re-INVITE."""
TRICKLE_PACKETS = 10
"""Packets a second towards a host that has not proven itself, whichever legs name it."""
TRICKLE_BYTES = 200
RESEND_BURST = 64
"""Retransmissions a viewer may have at once; they come back at `RESEND_RATE` a second."""
RESEND_RATE = 200.0

_HEADER = Struct("!BBHII")
_VERSION = 0x80
_ATTEMPTS = 3
"""An ICMP error pending on the shared socket is of some other peer, and reported once: send again."""
_GONE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
State = Literal["live", "waiting", "catching", "paused"]


class Trickle:
    """What unproven addresses may get: by host, or many calls that name one victim would add up to a flood."""

    def __init__(self) -> None:
        self._second = 0
        self._sent: dict[str, int] = {}

    def allows(self, host: str, size: int, now: float) -> bool:
        """Take one packet of `size` octets from the host's allowance of this second; False if there is no room."""
        if int(now) != self._second:
            self._second = int(now)
            self._sent.clear()
        sent = self._sent.get(host, 0)
        if size > TRICKLE_BYTES or sent >= TRICKLE_PACKETS:
            return False
        self._sent[host] = sent + 1
        return True


class Outgoing:
    """Sends one stream's packets to one leg under that leg's numbers."""

    def __init__(self, outlet: Outlet, stream: Stream | None, random: Random, trickle: Trickle, lanes: Lanes) -> None:
        self.outlet = outlet
        self.packets = 0
        self.octets = 0
        self.no_room = 0
        self.resent = 0
        self.state: State = "paused"
        self._numbers = LegNumbers(random.getrandbits(15), random.getrandbits(31))
        self._cursor = 0
        self._squeezed: dict[int, int] = {}
        self._dropping: int | None = None
        self._trickle = trickle
        self._lanes = lanes
        self._lane: Lane | None = None
        self._replay_at = 0.0
        self._resends = float(RESEND_BURST)
        self._resent_at = 0.0
        self.stream = stream
        self._protection: Protection | None = None
        self._set_keys()

    def start(self, now: float) -> None:
        """(Re)start after opening, hold or a new source's first packet: from the cached picture where there is one."""
        stream = self.stream
        if self.outlet.flow == "paused" or stream is None:
            self.state = "paused"
        elif not stream.has_keyframes:
            self._numbers.resume(stream.timeline.highest + 1)
            self.state = "live"
        elif stream.startable(now) and stream.cache.start is not None and now >= self._replay_at:
            if self.outlet.flow == "open":  # a leg that has not latched yet gets next to nothing of it
                self._replay_at = now + REPLAY_INTERVAL
            self._rewind(stream.cache.start)
            self._squeezed = stream.replay_timestamps()
            self.state = "catching"
        else:
            self.state = "waiting"

    def change(self, outlet: Outlet, now: float) -> None:
        """New negotiation: another address, payload type or flow; the numbering goes on."""
        opens = outlet.flow == "open" != self.outlet.flow
        if outlet.socket is not self.outlet.socket:
            self.close()
        self.outlet = outlet
        self._set_keys()
        if outlet.flow == "paused":
            self.state = "paused"
        elif opens or self.state == "paused":
            self.start(now)

    def close(self) -> None:
        """Let go of the socket of its own."""
        if self._lane is not None:
            self._lanes.close(self._lane)
            self._lane = None

    def deliver(self, packets: Iterable[Packet], keyframe_at: int | None, now: float) -> bool:
        """Send new packets of the line; False when the socket is full and the rest of the frame was dropped.

        `keyframe_at` is the number with which a keyframe starts in this burst.
        """
        if self._lane is not None and not self._lane.needed(now):
            self.close()
        if self.state == "waiting" and keyframe_at is not None:
            self._rewind(keyframe_at)
            self.state = "live"
        elif self.state == "catching" and keyframe_at is not None:
            # A fresh keyframe makes what is left of the old picture worthless.
            self._rewind(keyframe_at)
        if self.state not in ("live", "catching"):
            return True
        for packet in packets:
            if self.state == "catching" and packet.sequence >= self._cursor:
                continue
            if packet.timestamp == self._dropping:
                self.no_room += 1
                continue
            if not self._send(packet, now):
                self.no_room += 1
                self._dropping = packet.timestamp
                return False
        return True

    def catch_up(self, now: float) -> None:
        """The next burst of the cached picture; live when nothing is left."""
        stream = self.stream
        if self.state != "catching" or stream is None:
            return
        highest = stream.timeline.highest
        if self._cursor <= highest - HISTORY:
            self.state = "waiting"
            return
        sent = 0
        while self._cursor <= highest and sent < CATCH_UP_PACKETS:
            packet = stream.packet(self._cursor)
            if packet is not None:
                if not self._send(packet, now):
                    return
                sent += 1
            self._cursor += 1
        if self._cursor > highest:
            self.state = "live"

    def resend(self, lost: Sequence[int], now: float) -> int:
        """Send again packets named by this leg's own 16-bit numbers, within the leg's allowance."""
        if self.stream is None or self.state == "paused":
            return 0
        self._resends = min(RESEND_BURST, self._resends + (now - self._resent_at) * RESEND_RATE)
        self._resent_at = now
        before = self.packets
        for number in lost:
            if self._resends < 1:
                break
            self._resends -= 1  # also for what is not there: looking for it costs us, and asking costs them nothing
            sequence = self._numbers.group_sequence(number)
            packet = None if sequence is None else self.stream.packet(sequence)
            if packet is not None:
                self._send(packet, now)
        resent = self.packets - before
        self.resent += resent
        return resent

    @property
    def report(self) -> OutletState:
        """Counters for sender reports."""
        return OutletState(self.outlet.ssrc, self.packets, self.octets, self._numbers.timestamp_offset)

    def add_to(self, totals: Totals) -> None:
        """Count this stream in."""
        totals.packets_out += self.packets
        totals.octets_out += self.octets
        totals.no_room += self.no_room
        totals.resent += self.resent

    def _set_keys(self) -> None:
        """The same keys again keep their index and list of what was sent."""
        keys, ssrc = self.outlet.security, self.outlet.ssrc
        if keys is None:
            self._protection = None
        elif self._protection is None or not self._protection.is_for(keys, ssrc):
            self._protection = Protection(keys, ssrc, MAX_MEDIA_BYTES)

    def _rewind(self, sequence: int) -> None:
        self._numbers.resume(sequence)
        self._cursor = sequence
        self._squeezed = {}

    def _send(self, packet: Packet, now: float) -> bool:
        """True when sent or left out for good; False when the socket is full."""
        outlet = self.outlet
        payload: bytes | None = packet.payload
        if outlet.layout and self.stream is not None:
            payload = self.stream.repacked(packet, outlet.layout)
        host = outlet.destination.host
        if payload is None or (outlet.flow == "trickle" and not self._trickle.allows(host, len(payload), now)):
            self._numbers.skip(packet.sequence)
            return True
        number = self._numbers.assign(packet.sequence)
        if number is None:
            return True
        timestamp = self._squeezed.get(packet.timestamp, packet.timestamp) + self._numbers.timestamp_offset
        second = packet.marker << 7 | outlet.payload_type
        header = _HEADER.pack(_VERSION, second, number & 0xFFFF, timestamp & 0xFFFFFFFF, outlet.ssrc)
        datagram: bytes | None = header + payload
        if self._protection is not None:
            datagram = self._protection.apply(number, header + payload)
        if datagram is None:
            return True
        if not self._transmit(datagram):
            return False
        self.packets += 1
        self.octets += len(payload)
        return True

    def _transmit(self, datagram: bytes) -> bool:
        outlet = self.outlet
        for _ in range(_ATTEMPTS):
            sock = outlet.socket if self._lane is None else self._lane.socket
            try:
                sock.sendto(datagram, outlet.destination)
            except BlockingIOError:
                if self._lane is not None:
                    self._lane.found_full()
                    return False
                self._lane = self._lanes.open(outlet.socket)
                if self._lane is None:
                    return False
                continue
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # the path's own queue, see send(2)
                    return False
                if error.errno in _GONE:
                    continue
            break
        return True  # or unroutable: lost to this leg, its number stays
