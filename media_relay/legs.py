"""Legs as the control side sees them: what was negotiated, where the peer really is, and what the engine is told.

An address is only sent to once something vouches for it: an authenticated check (ICE), an SDP address that equals
the signalling peer's, or a latched packet. Before that a leg gets a trickle at most, and never to nowhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Literal

from media_relay.engine import EngineLeg, Flow, Inlet, Layout, Outlet
from media_relay.latching import Latch
from media_relay.ports import MediaPort
from media_relay.security import MediumSecurity
from protocols.control import KeptMedia, LegInfo, LegMedia, LegPlace, LegRow, LegSpec, MediaKind, MediaSpec
from protocols.join import IceCredentials, IceLiteResponder, new_credentials
from protocols.net import Address
from protocols.sdp import AmrFormat, H264Format
from provisioning.config import RelayConfig

Role = Literal["source", "sink", "announcement"]
RandomBytes = Callable[[int], bytes]


@dataclass(slots=True, eq=False)
class LegMedium:
    """One medium of a leg and what is known about its peer."""

    leg: "Leg"
    spec: MediaSpec
    port: MediaPort
    ssrc: int
    credentials: IceCredentials | None
    responder: IceLiteResponder | None
    peer: Address | None = None
    """Where media goes to and comes from; None while nobody vouched for any address."""
    proven: bool = True
    """False while the peer's host is named by checks alone: their source can be forged to flood somebody else."""
    rtcp_peer: Address | None = None
    rtp_latch: Latch | None = None
    rtcp_latch: Latch | None = None
    security: MediumSecurity = field(default_factory=MediumSecurity)
    fir_sequence: int = 0
    lost: int | None = None
    """How many of our packets the peer missed, by its last report; None before one."""

    @property
    def kind(self) -> MediaKind:
        """Audio or video."""
        return self.spec.kind

    def info(self) -> LegMedia:
        """For the SDP answer."""
        port = self.port
        names = self.credentials or IceCredentials("", "")
        rtcp = port.rtp_address if self.spec.rtcp_mux else port.rtcp_address
        return LegMedia(self.kind, port.rtp_address, rtcp, names.ufrag, names.password, port.shared)


@dataclass(slots=True, eq=False)
class Leg:
    """A leg of a group; times are monotonic seconds."""

    group_id: str
    epoch: int
    spec: LegSpec
    role: Role
    created_at: float
    media: dict[MediaKind, LegMedium] = field(default_factory=dict)
    heard_at: float | None = None
    """Last authentic STUN or RTCP; the engine knows about RTP."""
    joined: bool = False
    lost: str | None = None
    """Why it counts as lost."""
    cut: bool = False
    """Nothing is sent: no consent, or the address never answered."""
    errors: int = 0
    """ICMP errors since it was last heard."""
    packets_beside: int = 0
    """Media that did not pass the engine: what came before it knew the address, and all of an announcement leg."""
    octets_beside: int = 0
    report_at: float = 0.0
    refused: bool = False
    """Media of it was dropped for its source, and the log says so."""
    visit: int = -1
    """Which of its scheduled visits counts: the last."""
    removed: bool = False
    told: tuple[LegPlace, ...] = ()
    """The places the AS knows."""

    @property
    def leg_id(self) -> str:
        """Its id within the group."""
        return self.spec.leg_id

    @property
    def ice(self) -> bool:
        """True when its peer does connectivity checks."""
        return any(medium.spec.ice for medium in self.media.values())

    @property
    def all_checked(self) -> bool:
        """True when every accepted m-line has an address that proved itself."""
        return all(medium.peer is not None for medium in self.media.values())

    @property
    def elsewhere(self) -> bool:
        """True when media goes to a host other than the one that signals: a single forged packet could name it."""
        hosts = {medium.peer.host for medium in self.media.values() if medium.peer is not None}
        return bool(hosts - {self.spec.client_address})

    def info(self) -> LegInfo:
        """What the AS puts into the answer."""
        return LegInfo(self.leg_id, tuple(self.media[media.kind].info() for media in self.spec.media))

    def places(self) -> tuple[LegPlace, ...]:
        """Where its peer proved to be."""
        return tuple(
            LegPlace(medium.kind, medium.peer, medium.rtcp_peer)
            for medium in self.media.values()
            if medium.peer is not None and medium.proven
        )

    def row(self, silent_for: float | None, packets: int, octets: int) -> LegRow:
        """The leg in a listing."""
        return LegRow(
            group_id=self.group_id,
            epoch=self.epoch,
            leg_id=self.leg_id,
            role=self.role,
            joined=self.joined,
            lost=self.lost is not None,
            silent_for=silent_for,
            packets=packets,
            octets=octets,
        )

    def for_engine(self, now: float) -> EngineLeg:
        """The leg as the engine is to treat it."""
        inlets = [self._inlet(medium, medium.peer) for medium in self.media.values() if medium.peer is not None]
        outlets = [self._outlet(medium, now) for medium in self.media.values() if self.role == "sink"]
        return EngineLeg(
            self.group_id, self.leg_id, tuple(inlets), tuple(outlet for outlet in outlets if outlet is not None)
        )

    def _inlet(self, medium: LegMedium, peer: Address) -> Inlet:
        spec = medium.spec
        sets = H264Format.from_fmtp(spec.fmtp).parameter_sets if spec.codec.upper() == "H264" else ()
        return Inlet(
            medium=spec.kind,
            socket=medium.port.rtp,
            peer=peer,
            payload_type=spec.payload_type,
            forward=self.role == "source" and spec.receives,
            codec=spec.codec,
            clock_rate=spec.clock_rate,
            layout=_layout(spec),
            parameter_sets=sets,
            security=spec.receive_security,
        )

    def _outlet(self, medium: LegMedium, now: float) -> Outlet | None:
        spec = medium.spec
        destination = medium.peer or (None if spec.ice else spec.rtp)
        if destination is None or not sendable(destination):
            return None
        flow: Flow = "open"
        if not spec.sends or self.cut:
            flow = "paused"
        elif medium.peer is None:
            latch = medium.rtp_latch
            flow = "trickle" if latch is not None and now - latch.opened_at <= latch.window else "paused"
        elif not medium.proven:
            flow = "trickle"
        return Outlet(
            *(spec.kind, medium.port.rtp, destination, spec.payload_type, medium.ssrc, flow, _layout(spec)),
            security=spec.send_security,
        )


def needs_own_port(role: Role, spec: MediaSpec, client_address: str) -> bool:
    """True unless a shared socket can tell the leg apart: by its credentials, or by an address that is vouched for.

    Announcements have nothing to share, and take their port along when they become viewers.
    """
    vouched = _vouched(spec.rtp, client_address) and _vouched(rtcp_of(spec), client_address)
    return role != "sink" or not (spec.ice or vouched)


def rtcp_of(spec: MediaSpec) -> Address:
    """Where its peer says that it takes RTCP."""
    return spec.rtp if spec.rtcp_mux else spec.rtcp


def new_medium(
    leg: Leg,
    spec: MediaSpec,
    port: MediaPort,
    config: RelayConfig,
    random_bytes: RandomBytes,
    now: float,
    kept: KeptMedia | None = None,
) -> LegMedium:
    """A medium whose peer is known as far as signalling alone can vouch for it, registered on its port.

    If this is the very port its phone knows already, its credentials are those it knows too, and its peer is believed
    to be where it was: what proved that has been forgotten by a relay's death alone. Elsewhere all begins anew, as a
    phone with ICE needs new credentials to see that it shall check again (RFC 8839 section 4.4.1.1.1).
    """
    if kept is not None and kept.media.rtp != port.rtp_address:
        kept = None
    credentials = (_kept_credentials(kept) or new_credentials(random_bytes)) if spec.ice else None
    responder = IceLiteResponder(credentials, spec.remote_ufrag or None) if credentials is not None else None
    ssrc = int.from_bytes(random_bytes(4), "big")
    medium = LegMedium(leg, spec, port, ssrc, credentials, responder)
    locate(medium, config, now)
    if kept is not None and kept.peer is not None and medium.peer is None:
        _find_again(medium, kept.peer, now)
    return medium


def _find_again(medium: LegMedium, place: LegPlace, now: float) -> None:
    medium.peer, medium.rtp_latch = place.rtp, None
    if medium.responder is not None:
        medium.responder.last_check = now
    if place.rtcp is not None:
        medium.rtcp_latch = None
        set_rtcp_peer(medium, place.rtcp)


def _kept_credentials(kept: KeptMedia | None) -> IceCredentials | None:
    """Those its phone knows; None where it was told none."""
    return IceCredentials(kept.media.ufrag, kept.media.password) if kept is not None and kept.media.ufrag else None


def locate(medium: LegMedium, config: RelayConfig, now: float) -> None:
    """(Re)start finding out where the peer is, after its addresses were negotiated."""
    leg, spec, port = medium.leg, medium.spec, medium.port
    port.forget(medium)
    medium.rtp_latch = medium.rtcp_latch = None
    if not port.shared:
        port.owner = medium
    if medium.credentials is not None:
        port.by_ufrag[medium.credentials.ufrag] = medium
        if medium.rtcp_peer is not None:
            port.by_rtcp[medium.rtcp_peer] = medium
        return
    medium.peer = medium.rtcp_peer = None
    rtcp, client = rtcp_of(spec), leg.spec.client_address
    vouched = leg.role != "source" and _vouched(spec.rtp, client)
    if port.shared or vouched:
        medium.peer = spec.rtp
    else:
        medium.rtp_latch = Latch(spec.rtp, client, config.latch, now, config.latch_window)
    if port.shared or (vouched and _vouched(rtcp, client)):
        set_rtcp_peer(medium, rtcp)
    else:
        medium.rtcp_latch = Latch(rtcp, client, config.latch, now, config.latch_window)


def renegotiate(
    medium: LegMedium,
    spec: MediaSpec,
    *,
    moved: bool,
    config: RelayConfig,
    random: RandomBytes,
    now: float,
    kept: KeptMedia | None = None,
) -> None:
    """Bring a medium to its new negotiation; address changes start the search anew, an ICE restart the credentials.

    Where the restart answers an offer of ours, the credentials stay those of the offer, `kept`.
    """
    before, medium.spec = medium.spec, spec
    if medium.responder is not None and spec.remote_ufrag != before.remote_ufrag:
        medium.credentials = _kept_credentials(kept) or new_credentials(random)
        consent = medium.responder.last_check
        medium.responder = IceLiteResponder(medium.credentials, spec.remote_ufrag or None)
        medium.responder.last_check = consent
        moved = True
    if not sendable(spec.rtp):
        medium.spec = replace(spec, rtp=before.rtp, rtcp=before.rtcp, sends=False)
    elif moved or (before.rtp, before.rtcp, before.rtcp_mux) != (spec.rtp, spec.rtcp, spec.rtcp_mux):
        locate(medium, config, now)


def set_rtcp_peer(medium: LegMedium, address: Address, *, proven: bool = False) -> None:
    """Accept RTCP from this address, and send it there. Unless `proven`, another leg's on the port stays that leg's."""
    by_rtcp = medium.port.by_rtcp
    if medium.rtcp_peer is not None and by_rtcp.get(medium.rtcp_peer) is medium:
        del by_rtcp[medium.rtcp_peer]
    medium.rtcp_peer = address
    if proven or address not in by_rtcp:
        by_rtcp[address] = medium


def _vouched(address: Address, client_address: str) -> bool:
    return address.host == client_address and sendable(address)


def sendable(address: Address) -> bool:
    """False for what holds a call the old way, and for what is no single host."""
    host = ip_address(address.host)
    return not (host.is_unspecified or host.is_multicast) and address.port > 0


def _layout(spec: MediaSpec) -> Layout:
    if spec.codec.upper() not in ("AMR", "AMR-WB"):
        return ""
    return "octet-aligned" if AmrFormat.from_fmtp(spec.fmtp).octet_align else "bandwidth-efficient"
