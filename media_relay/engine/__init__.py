"""The engine moves media packets; this is its interface, `plain` the readable implementation and test oracle.

An engine knows nothing of SIP, joins or owners. It is told which groups and legs exist, reads their sockets,
forwards what a source's accepted address sends to all outlets of the group, and reports everything else (STUN,
RTCP, unknown sources) as bounded events. Times are monotonic seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from socket import socket
from typing import Literal, Protocol

from protocols.control import MediaKind
from protocols.net import Address
from protocols.rtp.reception import Reception
from protocols.srtp import Profile, Srtp

Layout = Literal["", "bandwidth-efficient", "octet-aligned"]
"""How AMR frames are packed (RFC 4867 section 4); "" for every other codec."""
Flow = Literal["open", "trickle", "paused"]
"""`trickle`: an address not yet proven, at most a few small packets a second; `paused`: nothing (hold, no consent)."""
MAX_MEDIA_BYTES = 16_384
"""Media larger than this is dropped: it bounds what the history of a group holds. (H.264 mode 0 may exceed an MTU.)"""
MAX_OTHER_BYTES = 2048
"""STUN, RTCP and first packets larger than this are dropped, so that strangers fill little memory."""


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group, the bounds of its instant picture, and of what its source may make us send."""

    group_id: str
    cache_seconds: float = 2.0
    cache_bytes: int = 512_000
    source_bytes_per_second: float = math.inf
    """What comes above it, beyond a second's worth at once, is not forwarded."""


@dataclass(frozen=True, slots=True)
class Inlet:
    """What a leg may send us for one medium: packets from `peer`, and from nobody else, are its media."""

    medium: MediaKind
    socket: socket
    peer: Address
    payload_type: int
    forward: bool
    """True for a source: its packets enter the fan-out. A viewer's are dropped, but count as a sign of life."""
    codec: str = ""
    clock_rate: int = 8000
    layout: Layout = ""
    parameter_sets: tuple[bytes, ...] = ()
    """H.264 SPS and PPS known from the SDP only, put before keyframes that come without them."""
    encoding: int = 0
    security: Srtp | None = None
    """What is not protected with it is dropped, and no sign of life. The same keys again go on where they were, replays
    refused, for as long as the leg lives; other ones begin anew, as their peer does (RFC 4568 section 7.1.4)."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """What we send a leg for one medium; `ssrc` names the outgoing stream until its peer has to prove itself.

    An outlet with security that was taken away comes back under another SSRC or other keys: its numbers begin anew,
    and no index may be used twice (RFC 3711 section 9.1).
    """

    medium: MediaKind
    socket: socket
    destination: Address
    payload_type: int
    ssrc: int
    flow: Flow = "open"
    layout: Layout = ""
    encoding: int = 0
    security: Srtp | None = None


@dataclass(frozen=True, slots=True)
class EngineLeg:
    """A leg as the engine sees it: any mixture of inlets and outlets, so source and sink are roles, not kinds."""

    group_id: str
    leg_id: str
    inlets: tuple[Inlet, ...] = ()
    outlets: tuple[Outlet, ...] = ()


@dataclass(frozen=True, slots=True)
class Datagram:
    """Anything on a watched socket that is not accepted media: STUN, RTCP, DTLS, or an unknown source."""

    socket: socket
    data: bytes
    source: Address


@dataclass(frozen=True, slots=True)
class SourceStarted:
    """First forwarded packet of a source's medium."""

    group_id: str
    leg_id: str
    medium: MediaKind


@dataclass(frozen=True, slots=True)
class KeyframeSeen:
    """A keyframe began to arrive in the group."""

    group_id: str


@dataclass(frozen=True, slots=True)
class KeyframeNeeded:
    """An outlet has nothing to start with: the cache is empty or past its bounds."""

    group_id: str


@dataclass(frozen=True, slots=True)
class PacketsMissing:
    """A burst of the source had gaps that nothing in it filled; `sequences` are the source's own numbers."""

    group_id: str
    medium: MediaKind
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LegUnreachable:
    """The network said so (ICMP) about one address; only the leg that lives there is concerned.

    Anybody can forge it. `leg_id` is that of the leg, "" where no accepted media comes from there.
    """

    socket: socket
    address: Address
    leg_id: str


EngineEvent = Datagram | SourceStarted | KeyframeSeen | KeyframeNeeded | PacketsMissing | LegUnreachable


@dataclass(frozen=True, slots=True)
class SourceState:
    """A group's medium as it comes in. Group time is the endless timestamp the outlets' timestamps derive from."""

    ssrc: int
    """The source's own SSRC."""
    clock_rate: int
    arrived_at: float
    timestamp: int
    """Group time of the newest packet, which arrived at `arrived_at`."""
    offset: int
    """Group time minus the source's own timestamp."""
    reception: Reception


@dataclass(frozen=True, slots=True)
class OutletState:
    """Counters of one outgoing stream (RFC 3550 section 6.4.1), and what to add to group time to get its timestamps."""

    ssrc: int
    packets: int
    octets: int
    timestamp_offset: int


@dataclass(frozen=True, slots=True)
class LegState:
    """What a leg's media did so far; `heard_at` is None before its first accepted packet."""

    heard_at: float | None
    received: int
    packets: int
    octets: int
    octets_received: int = 0


@dataclass(slots=True)
class Totals:
    """What the engine did since it was made, legs that are gone included; read when scraped, never on the way."""

    packets_in: int = 0
    octets_in: int = 0
    packets_out: int = 0
    octets_out: int = 0
    no_room: int = 0
    """Packets dropped because a socket was full (EAGAIN), with the rest of their frames."""
    over_rate: int = 0
    """Packets of broadcasters dropped above `source_bytes_per_second`."""
    resent: int = 0
    cache_bytes: int = 0
    """Held now for viewers to start with, since the last keyframes."""
    unauthentic: int = 0
    """Packets refused because they were not protected with their inlet's key, or replayed."""


class Engine(Protocol):
    """What moves packets. `set_*` are idempotent: they create, or change what differs."""

    def close(self) -> None:
        """Stop, and forget everything; the sockets stay their owner's."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable when `step` has something to do, or `events` more than `KeyframeSeen`."""
        ...

    def unable(self, profile: Profile) -> str | None:
        """Why media cannot be encrypted with it, and what to do; None where it can."""
        ...

    def watch(self, sock: socket) -> None:
        """Read this socket from now on."""
        ...

    def unwatch(self, sock: socket) -> None:
        """Stop reading it; call before closing it."""
        ...

    def set_group(self, spec: GroupSpec) -> None:
        """Create the group."""
        ...

    def set_leg(self, leg: EngineLeg, now: float) -> None:
        """Create or change a leg; outgoing numbering goes on across changes. Unknown group: nothing happens.

        Raises RuntimeError for keys of a profile it is `unable` to use.
        """
        ...

    def remove(self, group_id: str, leg_id: str | None = None) -> None:
        """Forget a leg, or the group with all its legs."""
        ...

    def inject(self, group_id: str, medium: MediaKind, encoding: int, burst: Sequence[bytes], now: float) -> None:
        """RTP packets of one medium into the fan-out: the only entrance, whatever they came over."""
        ...

    def resend(self, group_id: str, leg_id: str, medium: MediaKind, lost: Sequence[int], now: float) -> int:
        """Send again what a viewer's NACK names (its own sequence numbers); how many went out."""
        ...

    def step(self, now: float) -> float | None:
        """Read, forward, send what is due. The time of the next step that must not wait for `fileno`."""
        ...

    def events(self) -> list[EngineEvent]:
        """What happened since the last call, oldest first; bounded, datagrams beyond the bound are lost.

        Ask again once it is dealt with: a new source's socket is not read on before its first packets, which came as
        `Datagram`, can be on the line.
        """
        ...

    def source(self, group_id: str, medium: MediaKind) -> SourceState | None:
        """The group's incoming medium, None before its first packet."""
        ...

    def outlet(self, group_id: str, leg_id: str, medium: MediaKind) -> OutletState | None:
        """One outgoing stream, None where there is none."""
        ...

    def leg(self, group_id: str, leg_id: str) -> LegState | None:
        """A leg's counters, None for an unknown leg."""
        ...

    def totals(self) -> Totals:
        """Everything added up."""
        ...
