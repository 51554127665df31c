"""What arrives besides accepted media: joins, RTCP, and unknown sources, believed only as far as they prove themselves.

An unauthenticated datagram changes nothing and is not answered.
"""

from contextlib import suppress

import structlog

from media_relay.announcements import Announcements
from media_relay.engine import (
    Datagram,
    EngineEvent,
    KeyframeNeeded,
    KeyframeSeen,
    LegUnreachable,
    PacketsMissing,
    SourceStarted,
)
from media_relay.feedback import Feedback
from media_relay.groups import Groups
from media_relay.legs import LegMedium, set_rtcp_peer
from media_relay.liveness import VIEWER_SILENCE, Liveness
from media_relay.metrics import LATCH_REFUSED
from media_relay.ports import MediaPort
from protocols.control import MediaKind, MediaStarted
from protocols.join import check_username
from protocols.net import Address
from protocols.rtp.classify import classify
from protocols.rtp.packet import peek_header

_ROUNDS = 8
"""How often the engine is asked at a time, before something else has its turn; it is hardly ever three times."""

log = structlog.get_logger()


class Traffic:
    """Takes the engine's events and acts on them."""

    def __init__(self, groups: Groups, feedback: Feedback, liveness: Liveness, announcements: Announcements) -> None:
        self._groups = groups
        self._engine = groups.engine
        self._feedback = feedback
        self._liveness = liveness
        self._announcements = announcements
        self._beginnings: dict[tuple[str, MediaKind], list[bytes]] = {}
        """What was read before the engine knew the address: the stream's beginning, often its first keyframe."""

    def handle(self, now: float) -> None:
        """Everything the engine has to tell; asked again, so that it knows when what it told is done with."""
        for _ in range(_ROUNDS):
            events = self._engine.events()
            if not events:
                break
            for event in events:
                self._event(event, now)
            self._begin(now)

    def _begin(self, now: float) -> None:
        """Put what new sources sent on the line."""
        if self._beginnings:
            beginnings, self._beginnings = self._beginnings, {}
            for (group_id, kind), packets in beginnings.items():
                self._engine.inject(group_id, kind, 0, packets, now)

    def _event(self, event: EngineEvent, now: float) -> None:
        match event:
            case Datagram():
                self._datagram(event, now)
            case SourceStarted(group_id, leg_id, kind):
                group = self._groups.by_id.get(group_id)
                if group is not None and (leg := group.legs.get(leg_id)) is not None:
                    self._groups.emit(leg, MediaStarted(group_id, leg.epoch, leg_id, kind))
            case KeyframeSeen(group_id):
                if (group := self._groups.by_id.get(group_id)) is not None:
                    group.keyframes.seen(now)
            case KeyframeNeeded(group_id):
                if (group := self._groups.by_id.get(group_id)) is not None:
                    group.keyframes.want()
                    self._feedback.ask_keyframe(group, now)
            case PacketsMissing(group_id, kind, sequences):
                if (group := self._groups.by_id.get(group_id)) is not None:
                    self._feedback.ask_repeat(group, kind, sequences)
            case LegUnreachable(sock, address, leg_id):
                if (port := self._groups.ports.of(sock)) is not None:
                    self._liveness.unreachable(port, address, leg_id, now)

    def _datagram(self, event: Datagram, now: float) -> None:
        port = self._groups.ports.of(event.socket)
        if port is None:
            return
        on_rtcp = event.socket is port.rtcp
        match classify(event.data):
            case "stun":
                self._check(port, event, on_rtcp, now)
            case "rtcp":
                self._begin(now)  # reports are about what came before them
                self._rtcp(port, event, on_rtcp, now)
            case "rtp" if not on_rtcp:
                self._unknown_media(port, event, now)

    def _check(self, port: MediaPort, event: Datagram, on_rtcp: bool, now: float) -> None:
        names = check_username(event.data)
        medium = port.by_ufrag.get(names[0]) if names is not None else None
        if medium is None or medium.responder is None:
            return
        result = medium.responder.receive(event.data, event.source, now)
        if not result.authenticated:
            return  # not even told why: nothing a stranger sends is answered
        if result.reply is not None:
            with suppress(OSError):
                event.socket.sendto(result.reply, event.source)
        if result.nominated and not self._lives_there(medium, event.source, now):
            self._nominated(medium, event.source, on_rtcp, now)
        self._groups.heard(medium.leg, now)

    def _lives_there(self, medium: LegMedium, source: Address, now: float) -> bool:
        """True where a leg without ICE is at this address on the port: a check's source can be forged to take it over.

        One with ICE may be the same phone's call before a crash.
        """
        group = self._groups.by_id.get(medium.leg.group_id)
        if group is None or source in (medium.peer, medium.rtcp_peer):
            return False
        for leg in group.legs.values():
            if leg is medium.leg or leg.ice or leg.lost is not None:
                continue
            if any(m.port is medium.port and source in (m.peer, m.rtcp_peer) for m in leg.media.values()):
                heard_at = self._liveness.heard_at(leg)
                return heard_at is None or now - heard_at < VIEWER_SILENCE
        return False

    def _nominated(self, medium: LegMedium, source: Address, on_rtcp: bool, now: float) -> None:
        spec = medium.spec
        if on_rtcp:
            if medium.proven or (medium.peer is not None and medium.peer.host == source.host):
                set_rtcp_peer(medium, source, proven=True)
        elif medium.peer != source:
            medium.peer = source
            # Not by the SDP: it may name a victim, in whose name one forged check would then start a flood.
            medium.proven = source.host == medium.leg.spec.client_address or self._groups.config.latch == "any"
            if not medium.proven:
                medium.ssrc = self._groups.new_ssrc()  # only who receives there can name it, see Feedback
            if spec.rtcp_mux:
                set_rtcp_peer(medium, source, proven=True)
            elif medium.rtcp_peer is None or medium.rtcp_peer.host != source.host:
                set_rtcp_peer(medium, Address(source.host, spec.rtcp.port))
            self._groups.sync(medium.leg, now)

    def _rtcp(self, port: MediaPort, event: Datagram, on_rtcp: bool, now: float) -> None:
        source = event.source
        medium = port.by_rtcp.get(source)
        if medium is None and port.owner is not None:
            owner = port.owner
            muxed = not on_rtcp and owner.peer == source
            latching = owner.rtcp_latch is not None and owner.rtcp_latch.accepts(source, now)
            medium = owner if muxed or latching else None
        if medium is None or not self._feedback.received(medium, event.data, now):
            return
        if medium.rtcp_latch is not None and on_rtcp != medium.spec.rtcp_mux:
            medium.rtcp_latch = None
            set_rtcp_peer(medium, source)
        self._assume_media(medium, source, now)
        self._groups.heard(medium.leg, now)

    def _assume_media(self, medium: LegMedium, source: Address, now: float) -> None:
        """A viewer that only reports has proven its host: media goes where its SDP says, or where it reports from."""
        if medium.peer is None and medium.rtp_latch is not None:
            port = source.port if medium.spec.rtcp_mux else medium.spec.rtp.port
            medium.peer = Address(source.host, port)
            if medium.spec.rtcp_mux:
                medium.rtp_latch = None
            self._groups.sync(medium.leg, now)

    def _unknown_media(self, port: MediaPort, event: Datagram, now: float) -> None:
        medium = port.owner
        spoken = peek_header(event.data).payload_type
        if medium is None or spoken not in (medium.spec.payload_type, medium.spec.telephone_event):
            return
        latches = medium.peer != event.source or medium.rtp_latch is not None
        if latches and (medium.rtp_latch is None or not medium.rtp_latch.accepts(event.source, now)):
            self._refused(medium, event.source)
            return
        data = medium.security.unprotect(medium.spec.receive_security, event.data)
        if data is None:
            return
        if latches:
            self._latch(medium, event.source, now)
        medium.leg.packets_beside += 1
        medium.leg.octets_beside += len(event.data)
        if medium.leg.role == "source" and medium.spec.receives:
            self._beginnings.setdefault((medium.leg.group_id, medium.kind), []).append(data)
        elif spoken == medium.spec.telephone_event:
            self._announcements.key(medium, data, now)
        self._groups.heard(medium.leg, now)

    def _refused(self, medium: LegMedium, source: Address) -> None:
        LATCH_REFUSED.inc()
        latch, leg = medium.rtp_latch, medium.leg
        if latch is not None and not leg.refused:  # once a leg, or a stranger could fill the log
            leg.refused = True
            log.warning(
                "leg.media_refused",
                group=leg.group_id,
                leg=leg.leg_id,
                kind=medium.kind,
                source=str(source),
                expected=str(latch.expected),
                setting=f"relay.latch: {latch.policy}",
            )

    def _latch(self, medium: LegMedium, source: Address, now: float) -> None:
        medium.rtp_latch = None
        medium.peer = source
        if medium.spec.rtcp_mux:
            medium.rtcp_latch = None
            set_rtcp_peer(medium, source)
        self._groups.sync(medium.leg, now)
