"""One incoming medium of a group: its line of packets, the recent history, the keyframe it can start viewers with."""

from collections.abc import Iterator
from typing import NamedTuple

from media_relay.engine import Inlet, Layout, SourceState
from media_relay.keyframes import KeyframeCache, squeezed
from media_relay.numbering import HISTORY, HISTORY_SECONDS, SourceTimeline
from protocols.rtp.amr import AmrError, convert
from protocols.rtp.h264 import IDR, SPS, nal_types, parameter_sets
from protocols.rtp.packet import RtpError, payload_span, peek_header
from protocols.rtp.reception import Reception

MAX_PARAMETER_SETS = 8
"""SPS and PPS put before a keyframe: each is one more packet to every viewer, so a broadcaster names no more."""
MAX_PARAMETER_BYTES = 2048
MAX_MISSING = 64
"""Packets of one burst told as missing; a longer gap is filled sooner by a keyframe than by repeats."""


class Packet(NamedTuple):
    """A packet on the group's line; padding, CSRCs and extensions are gone."""

    sequence: int
    timestamp: int
    marker: bool
    payload: bytes


class Stream:
    """What a group receives of one medium and encoding, whichever leg is the source."""

    def __init__(self, inlet: Inlet, cache_seconds: float, cache_bytes: int) -> None:
        self.clock_rate = inlet.clock_rate
        self.has_keyframes = inlet.codec.upper() == "H264"
        self.timeline = SourceTimeline(inlet.clock_rate)
        self.cache = KeyframeCache(cache_seconds, cache_bytes)
        self.reception = Reception(0, inlet.clock_rate)
        self._history: list[Packet | None] = [None] * HISTORY
        self._kept_ticks = round(max(cache_seconds, HISTORY_SECONDS) * inlet.clock_rate)
        self._oldest: int | None = None
        """No packet before this number is there."""
        self._forgotten = 0
        """Numbers below are too old to be placed."""
        self._missing: list[int] = []
        self._repacked: tuple[int, Layout, bytes | None] | None = None
        self.source_changed(inlet)

    def source_changed(self, inlet: Inlet) -> None:
        """Another leg feeds this stream now (or the same one renegotiated): viewers see one continuation."""
        self.inlet = inlet
        self._parameter_sets = _bounded(inlet.parameter_sets)
        self.timeline.source_replaced()

    def place(self, datagram: bytes, now: float) -> tuple[list[Packet], bool]:
        """The packets this datagram adds to the line (none when late, repeated or garbage) and whether a keyframe
        starts with them."""
        try:
            header = peek_header(datagram)
            start, end = payload_span(datagram)
        except RtpError:
            return [], False
        if header.payload_type != self.inlet.payload_type or start == end:
            return [], False
        known_ssrc = self.timeline.ssrc
        placed = self.timeline.place(header, now)
        if placed is None:
            return [], False
        if self.timeline.ssrc != known_ssrc:
            self.reception = Reception(header.ssrc, self.clock_rate)
            self.cache.clear()
            self._missing.clear()
        self._note_missing(header.sequence)
        self.reception.received(header.sequence, header.timestamp, now)
        sequence, timestamp = placed
        known = self._history[sequence % HISTORY]
        if sequence < self._forgotten or (known is not None and known.sequence >= sequence):
            return [], False
        payload = datagram[start:end]
        packets: list[Packet] = []
        keyframe = False
        if self.has_keyframes:
            types = nal_types(payload)
            starts = IDR in types or SPS in types
            if SPS in types:
                self._parameter_sets = _bounded(parameter_sets(payload)) or self._parameter_sets
            elif starts and timestamp != self.cache.timestamp:
                if sequence == self.timeline.highest:
                    packets = self._insert_parameter_sets(sequence, timestamp)
                    sequence += len(packets)
                else:
                    starts = not self._parameter_sets  # there is no room for them now: nobody can start here
            first = packets[0].sequence if packets else sequence
            keyframe = self.cache.add(first, timestamp, starts, len(payload), now)
        packets.append(Packet(sequence, timestamp, header.marker, payload))
        for packet in packets:
            self._history[packet.sequence % HISTORY] = packet
        first = packets[0].sequence
        self._forget(first if self._oldest is None else min(self._oldest, first))
        return packets, keyframe

    def _forget(self, oldest: int) -> None:
        """Let go of what nobody can use any more, from this number on."""
        line = self.timeline
        while oldest < line.highest:
            packet = self.packet(oldest)
            if packet is not None:
                if packet.timestamp >= line.timestamp - self._kept_ticks:
                    break
                self._history[oldest % HISTORY] = None
                self._forgotten = oldest + 1
            oldest += 1
        self._oldest = oldest

    def take_missing(self) -> tuple[int, ...]:
        """The source's own numbers of packets that did not come since the last call, though later ones did."""
        missing = tuple(self._missing)
        self._missing.clear()
        return missing

    def packet(self, sequence: int) -> Packet | None:
        """A packet of the last `HISTORY` and `HISTORY_SECONDS`, None when it is missing or forgotten."""
        packet = self._history[sequence % HISTORY]
        return packet if packet is not None and packet.sequence == sequence else None

    def since(self, sequence: int) -> Iterator[Packet]:
        """What is known from this number on, in source order."""
        oldest = self.timeline.highest - HISTORY + 1
        for number in range(max(sequence, oldest), self.timeline.highest + 1):
            packet = self.packet(number)
            if packet is not None:
                yield packet

    def startable(self, now: float) -> bool:
        """True when a viewer can be started from the cache."""
        start = self.cache.start
        oldest = max(self._forgotten, self.timeline.highest - HISTORY // 2 + 1)
        return start is not None and self.cache.usable(now) and start >= oldest

    def replay_timestamps(self) -> dict[int, int]:
        """Squeezed timestamps of the frames since the keyframe."""
        start = self.cache.start
        assert start is not None, "ask `startable` first"
        return squeezed((packet.timestamp for packet in self.since(start)), self.clock_rate)

    def repacked(self, packet: Packet, wanted: Layout) -> bytes | None:
        """The payload in the AMR layout a leg negotiated (RFC 4867), None when it cannot be read; done once for all."""
        inlet = self.inlet
        if inlet.layout == wanted or not inlet.layout:
            return packet.payload
        done = self._repacked
        if done is None or done[0] != packet.sequence or done[1] != wanted:
            wide = inlet.codec.upper() == "AMR-WB"
            try:
                payload = convert(
                    packet.payload, inlet.layout == "octet-aligned", wanted == "octet-aligned", wideband=wide
                )
            except AmrError:
                payload = None
            done = self._repacked = (packet.sequence, wanted, payload)
        return done[2]

    def state(self) -> SourceState | None:
        """What feedback needs to know, None before the first packet."""
        line = self.timeline
        if line.ssrc is None:
            return None
        return SourceState(
            ssrc=line.ssrc,
            clock_rate=self.clock_rate,
            arrived_at=line.arrived_at,
            timestamp=line.timestamp,
            offset=line.timestamp_offset,
            reception=self.reception,
        )

    def _note_missing(self, number: int) -> None:
        gap = self.timeline.step - 1
        if gap < 0 and number in self._missing:
            self._missing.remove(number)
        elif 0 < gap <= MAX_MISSING - len(self._missing):
            self._missing += [number - back & 0xFFFF for back in range(gap, 0, -1)]

    def _insert_parameter_sets(self, sequence: int, timestamp: int) -> list[Packet]:
        """Our own packets with SPS and PPS, put on the line before the IDR that came without them."""
        sets = self._parameter_sets
        if not sets:
            return []
        self.timeline.insert_before(sequence, len(sets))
        return [Packet(sequence + i, timestamp, False, nal) for i, nal in enumerate(sets)]


def _bounded(sets: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The parameter sets, or none where there are more than any encoder makes."""
    fits = len(sets) <= MAX_PARAMETER_SETS and sum(map(len, sets)) <= MAX_PARAMETER_BYTES
    return sets if fits else ()
