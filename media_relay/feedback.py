"""RTCP both ways (RFC 3550 section 6, RFC 4585, RFC 5104): reports out, requests in, keyframes asked for.

Viewers get sender reports that fit the timeline rewritten for them, so that sound and picture stay together; the
source gets receiver reports and, within `KeyframeRequests`' limits, PLI or FIR. What viewers report about their
reception is a sign of life and steers nobody else's stream.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from media_relay.engine import Engine, SourceState
from media_relay.groups import Group, Groups
from media_relay.keyframes import Ask
from media_relay.legs import Leg, LegMedium
from media_relay.metrics import KEYFRAMES_ASKED, MISSED, NACKED
from protocols.control import KeyframeWanted, MediaKind
from protocols.net import Address
from protocols.rtp.rtcp import (
    CNAME,
    Fir,
    Nack,
    Pli,
    ReceiverReport,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    Tmmbn,
    Tmmbr,
    compound,
    ntp_time,
    parse_compound,
    unix_time,
)
from protocols.rtp.sequence import difference

_SOURCE_IDLE = 2.0
"""Seconds without video after which a source has nothing to make a keyframe of."""


class Feedback:
    """RTCP of all legs. `wall` gives Unix seconds, for NTP timestamps only."""

    def __init__(self, groups: Groups, wall: Callable[[], float], cname: str) -> None:
        self._groups = groups
        self._engine: Engine = groups.engine
        self._wall = wall
        self._cname = cname.encode()

    def received(self, medium: LegMedium, data: bytes, now: float) -> bool:
        """RTCP from a leg's accepted address; False when it is none."""
        plain = medium.security.unprotect_rtcp(medium.spec.receive_security, data)
        if plain is None:
            return False
        try:
            packets = parse_compound(plain)
        except RtcpError:
            return False
        leg = medium.leg
        group = self._groups.by_id.get(leg.group_id)
        if group is None:
            return False
        for packet in packets:
            if leg.role == "source":
                self._from_source(group, medium, packet, now)
            else:
                self._from_viewer(group, medium, packet, now)
        if leg.role == "sink":
            self._acknowledge_rate(medium, packets)
        self.ask_keyframe(group, now)
        return True

    def report(self, leg: Leg, now: float) -> None:
        """Send the leg its reports when they are due."""
        if not leg.joined or leg.cut or now < leg.report_at:
            return
        leg.report_at = now + self._groups.config.rtcp_interval
        for medium in leg.media.values():
            packet = self._receiver_report(medium, now) if leg.role == "source" else self._sender_report(medium, now)
            if packet is not None:
                self._send(medium, [packet, self._description(medium)])

    def ask_keyframe(self, group: Group, now: float) -> None:
        """Ask the source if it is time to, by the means it is thought to understand; not while it sends nothing."""
        if group.keyframes.next_timer() is None:
            self._groups.wishing.discard(group)
            return
        self._groups.wishing.add(group)
        source = group.source
        medium = source.media.get("video") if source is not None else None
        state = self._engine.source(group.group_id, "video")
        if source is None or medium is None or medium.peer is None or state is None:
            return
        if now - state.arrived_at > _SOURCE_IDLE:
            return
        ask = group.keyframes.due(now)
        if ask is None:
            return
        KEYFRAMES_ASKED.labels(ask).inc()
        if ask == "info" or medium.rtcp_peer is None:
            self._groups.emit(source, KeyframeWanted(group.group_id, group.epoch))
            return
        report = ReceiverReport(medium.ssrc, (state.reception.report(now),))
        self._send(medium, [report, self._description(medium), self._request(medium, ask, state)])

    def ask_repeat(self, group: Group, kind: MediaKind, sequences: Sequence[int]) -> None:
        """Ask a source that repeats packets (`a=rtcp-fb nack`, RFC 4585 section 6.2.1) for those that are missing."""
        medium = group.source.media.get(kind) if group.source is not None else None
        state = self._engine.source(group.group_id, kind)
        if medium is None or state is None or "nack" not in medium.spec.feedback or medium.rtcp_peer is None:
            return
        MISSED.inc(len(sequences))
        nack = Nack(medium.ssrc, state.ssrc, tuple(sequences))
        self._send(medium, [ReceiverReport(medium.ssrc), self._description(medium), nack])

    def _from_source(self, group: Group, medium: LegMedium, packet: RtcpPacket, now: float) -> None:
        state = self._engine.source(group.group_id, medium.kind)
        if isinstance(packet, SenderReport) and state is not None and packet.ssrc == state.ssrc:
            state.reception.sender_report(packet, now)
            group.source_reports[medium.kind] = packet

    def _from_viewer(self, group: Group, medium: LegMedium, packet: RtcpPacket, now: float) -> None:
        leg = medium.leg
        if not medium.proven and _names(packet, medium.ssrc):
            self._proven(medium, now)
        match packet:
            case SenderReport(reports=blocks) | ReceiverReport(reports=blocks):
                for block in blocks:
                    if block.ssrc == medium.ssrc:
                        medium.lost = max(0, block.cumulative_lost)
            case Nack(media=ssrc, sequences=lost) if ssrc == medium.ssrc:
                NACKED.inc(len(lost))
                self._engine.resend(group.group_id, leg.leg_id, medium.kind, lost, now)
            case Pli(media=ssrc) if ssrc == medium.ssrc:
                group.keyframes.viewer_asks(leg.leg_id, now)
            case Fir(entries=entries) if any(ssrc == medium.ssrc for ssrc, _ in entries):
                group.keyframes.viewer_asks(leg.leg_id, now)

    def _proven(self, medium: LegMedium, now: float) -> None:
        """Somebody at the peer's host reads what we send there: it may have all of it."""
        assert medium.peer is not None
        for other in medium.leg.media.values():
            other.proven |= other.peer is not None and other.peer.host == medium.peer.host
        self._groups.sync(medium.leg, now)

    def _acknowledge_rate(self, medium: LegMedium, packets: Iterable[RtcpPacket]) -> None:
        """At most one answer a datagram: its source may be forged, and whoever owns it must not be flooded."""
        request = next((packet for packet in packets if isinstance(packet, Tmmbr)), None)
        if request is not None:
            self._send(medium, [ReceiverReport(medium.ssrc), Tmmbn(medium.ssrc, request.entries[:1])])

    def _receiver_report(self, medium: LegMedium, now: float) -> RtcpPacket:
        state = self._engine.source(medium.leg.group_id, medium.kind)
        blocks = (state.reception.report(now),) if state is not None else ()
        return ReceiverReport(medium.ssrc, blocks)

    def _sender_report(self, medium: LegMedium, now: float) -> RtcpPacket | None:
        leg = medium.leg
        state = self._engine.source(leg.group_id, medium.kind)
        sent = self._engine.outlet(leg.group_id, leg.leg_id, medium.kind)
        if state is None or sent is None or sent.packets == 0:
            return ReceiverReport(medium.ssrc)
        timestamp = state.timestamp + round((now - state.arrived_at) * state.clock_rate)
        return SenderReport(
            ssrc=sent.ssrc,
            ntp=ntp_time(self._ntp_seconds(medium, state, timestamp)),
            rtp_timestamp=(timestamp + sent.timestamp_offset) & 0xFFFFFFFF,
            packets=sent.packets & 0xFFFFFFFF,
            octets=sent.octets & 0xFFFFFFFF,
        )

    def _ntp_seconds(self, medium: LegMedium, state: SourceState, timestamp: int) -> float:
        """When group time `timestamp` was captured: by the source's clock once all its media told it, else ours.

        Mixing the two would part sound from picture by however far the clocks are apart.
        """
        group_id = medium.leg.group_id
        group = self._groups.by_id[group_id]
        for kind in medium.leg.media:
            other = self._engine.source(group_id, kind)
            told = group.source_reports.get(kind)
            if other is not None and (told is None or told.ssrc != other.ssrc):
                return self._wall()
        report = group.source_reports[medium.kind]
        reported = state.timestamp + difference(report.rtp_timestamp + state.offset, state.timestamp, 32)
        return unix_time(report.ntp) + (timestamp - reported) / state.clock_rate

    def _request(self, medium: LegMedium, ask: Ask, state: SourceState) -> RtcpPacket:
        announced = medium.spec.feedback
        only_fir = "ccm fir" in announced and "nack pli" not in announced
        if ask == "pli" and not only_fir:
            return Pli(medium.ssrc, state.ssrc)
        medium.fir_sequence = (medium.fir_sequence + 1) & 0xFF
        return Fir(medium.ssrc, ((state.ssrc, medium.fir_sequence),))

    def _description(self, medium: LegMedium) -> RtcpPacket:
        return SourceDescription(((medium.ssrc, ((CNAME, self._cname),)),))

    def _send(self, medium: LegMedium, packets: Iterable[RtcpPacket]) -> None:
        destination: Address | None = medium.rtcp_peer
        data = medium.security.protect_rtcp(medium.spec.send_security, medium.ssrc, compound(packets))
        if destination is not None and data is not None:
            with suppress(OSError):  # an unreachable peer is liveness' business
                sock = medium.port.rtp if medium.spec.rtcp_mux else medium.port.rtcp
                sock.sendto(data, destination)


def _names(packet: RtcpPacket, ssrc: int) -> bool:
    """True for a report or request about this stream."""
    match packet:
        case SenderReport(reports=blocks) | ReceiverReport(reports=blocks):
            return any(block.ssrc == ssrc for block in blocks)
        case Nack(media=media) | Pli(media=media):
            return media == ssrc
    return False
