"""A session description as frozen values, and the writing of it (RFC 8866 section 5, RFC 8839 for ICE).

What may stand at session level and count for every medium (connection, direction, ICE credentials, setup) is
kept per medium; the writer lifts the common connection to session level again, as every phone expects it there.
Attributes without a field of their own stay, verbatim and in order, in `attributes` (crypto, fingerprint, ...).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
Attributes = tuple[tuple[str, str | None], ...]

MEDIA_TYPE = "application/sdp"


class SdpError(ValueError):
    """The text is no session description, or a value cannot stand in one."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The o= line: `session_id` names the description, `version` grows with every change (RFC 3264 section 8)."""

    username: str = "-"
    session_id: int = 0
    version: int = 0
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Format:
    """One RTP payload type of an m-line. `name` is empty for a dynamic type nobody described."""

    payload_type: int
    name: str = ""
    clock_rate: int = 0
    channels: int = 1
    fmtp: str = ""
    feedback: tuple[str, ...] = ()
    """RTCP feedback (RFC 4585), e.g. "nack pli"; wildcards are resolved into each format."""

    def is_codec(self, name: str) -> bool:
        """True if this is the named codec; encoding names are case-insensitive (RFC 4855)."""
        return self.name.casefold() == name.casefold()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate (RFC 8839 section 5.1); `extra` holds the name/value pairs after the type."""

    foundation: str
    component: int
    transport: str
    priority: int
    address: str
    port: int
    type: str = "host"
    extra: tuple[tuple[str, str], ...] = ()

    @classmethod
    def host(cls, address: str, port: int, component: int = 1) -> "Candidate":
        """The only candidate of an agent with one address (RFC 8445 section 5.1.2 for the priority)."""
        priority = 126 << 24 | 0xFFFF << 8 | 256 - component
        return cls("1", component, "UDP", priority, address, port)

    def __str__(self) -> str:
        tail = "".join(f" {name} {value}" for name, value in self.extra)
        return (
            f"{self.foundation} {self.component} {self.transport} {self.priority} "
            f"{self.address} {self.port} typ {self.type}{tail}"
        )


@dataclass(frozen=True, slots=True)
class Media:
    """One m-line with all that applies to it, session-level values included."""

    kind: str
    port: int
    protocol: str = "RTP/AVP"
    formats: tuple[Format, ...] = ()
    other_formats: tuple[str, ...] = ()
    """The formats of an m-line that is not RTP (T.38, BFCP, data channels), kept so that it can be refused."""
    connection: str = ""
    """The address media is wanted at: IPv4, IPv6 or a name, without TTL."""
    direction: Direction = "sendrecv"
    bandwidth: tuple[tuple[str, int], ...] = ()
    """b= lines, e.g. ("AS", 512) in kbit/s, ("TIAS", 500000) in bit/s."""
    rtcp_port: int | None = None
    rtcp_mux: bool = False
    ice_ufrag: str = ""
    ice_pwd: str = field(default="", repr=False)
    candidates: tuple[Candidate, ...] = ()
    setup: str = ""
    """TCP or DTLS role: active, passive, actpass, holdconn (RFC 4145, RFC 8842)."""
    tcp_connection: str = ""
    """a=connection: new or existing (RFC 4145)."""
    mid: str = ""
    label: str = ""
    ptime: int | None = None
    attributes: Attributes = field(default=(), repr=False)

    @property
    def rejected(self) -> bool:
        """True for an m-line refused or removed with port 0 (RFC 3264 section 6)."""
        return self.port == 0

    @property
    def is_rtp(self) -> bool:
        """True where the formats are RTP payload types."""
        return is_rtp_protocol(self.protocol)

    @property
    def is_tcp(self) -> bool:
        """True for RTP over TCP (RFC 4571)."""
        return self.protocol.upper().startswith("TCP/")

    @property
    def is_secure(self) -> bool:
        """True for the SRTP profiles."""
        return "SAVP" in self.protocol.upper()

    @property
    def has_ice(self) -> bool:
        """True if the peer gave ICE credentials for this medium."""
        return bool(self.ice_ufrag and self.ice_pwd)

    @property
    def control_port(self) -> int:
        """Where RTCP is wanted: a=rtcp, the RTP port itself when multiplexed, else the next one (0 where none is)."""
        if self.rtcp_mux:
            return self.port
        return (self.port + 1) % 0x10000 if self.rtcp_port is None else self.rtcp_port

    def format(self, payload_type: int) -> Format | None:
        """The format of a payload type, or None."""
        return next((format_ for format_ in self.formats if format_.payload_type == payload_type), None)

    def attribute(self, name: str) -> str | None:
        """The first value of an attribute kept verbatim ("" for a flag), or None if it is absent."""
        return _first(self.attributes, name)


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole description. `connection` is the session-level address, "" if there is none."""

    origin: Origin = Origin()
    name: str = "-"
    connection: str = ""
    bandwidth: tuple[tuple[str, int], ...] = ()
    ice_lite: bool = False
    attributes: Attributes = field(default=(), repr=False)
    media: tuple[Media, ...] = ()

    def first(self, kind: str) -> Media | None:
        """The first m-line of a kind that is not rejected, or None."""
        return next((media for media in self.media if media.kind == kind and not media.rejected), None)

    def attribute(self, name: str) -> str | None:
        """The first value of a session attribute ("" for a flag), or None if it is absent."""
        return _first(self.attributes, name)

    def serialise(self) -> bytes:
        """The text with CRLF line ends; raises SdpError if a value holds a line break or NUL."""
        lines = list(_session_lines(self))
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            raise SdpError("line break or NUL in a value")
        return "".join(f"{line}\r\n" for line in lines).encode()


def is_rtp_protocol(protocol: str) -> bool:
    """True for the transports whose formats are RTP payload types (RTP/AVP and its relatives)."""
    return "RTP/" in protocol.upper()


def _first(attributes: Attributes, name: str) -> str | None:
    return next((value or "" for key, value in attributes if key == name), None)


def _session_lines(session: SessionDescription) -> Iterator[str]:
    origin = session.origin
    yield "v=0"
    yield (f"o={origin.username} {origin.session_id} {origin.version} IN {_family(origin.address)} {origin.address}")
    yield f"s={session.name or '-'}"
    if session.connection:
        yield _connection_line(session.connection)
    yield from (f"b={kind}:{value}" for kind, value in session.bandwidth)
    yield "t=0 0"
    if session.ice_lite:
        yield "a=ice-lite"
    yield from _attribute_lines(session.attributes)
    for media in session.media:
        yield from _media_lines(media, session.connection)


def _media_lines(media: Media, session_connection: str) -> Iterator[str]:
    formats = [str(format_.payload_type) for format_ in media.formats] or list(media.other_formats) or ["0"]
    yield f"m={media.kind} {media.port} {media.protocol} {' '.join(formats)}"
    if media.connection and media.connection != session_connection:
        yield _connection_line(media.connection)
    yield from (f"b={kind}:{value}" for kind, value in media.bandwidth)
    yield from _format_lines(media.formats)
    if media.direction != "sendrecv":
        yield f"a={media.direction}"
    if media.rtcp_port is not None:
        yield f"a=rtcp:{media.rtcp_port}"
    if media.rtcp_mux:
        yield "a=rtcp-mux"
    named = {
        "mid": media.mid,
        "label": media.label,
        "setup": media.setup,
        "connection": media.tcp_connection,
        "ice-ufrag": media.ice_ufrag,
        "ice-pwd": media.ice_pwd,
        "ptime": "" if media.ptime is None else str(media.ptime),
    }
    yield from (f"a={name}:{value}" for name, value in named.items() if value)
    yield from (f"a=candidate:{candidate}" for candidate in media.candidates)
    yield from _attribute_lines(media.attributes)


def _format_lines(formats: tuple[Format, ...]) -> Iterator[str]:
    shared = formats[0].feedback if len({format_.feedback for format_ in formats}) == 1 else ()
    wildcard = shared if len(formats) > 1 else ()
    for format_ in formats:
        if format_.name:
            channels = f"/{format_.channels}" if format_.channels > 1 else ""
            yield f"a=rtpmap:{format_.payload_type} {format_.name}/{format_.clock_rate}{channels}"
        if format_.fmtp:
            yield f"a=fmtp:{format_.payload_type} {format_.fmtp}"
        if not wildcard:
            yield from (f"a=rtcp-fb:{format_.payload_type} {value}" for value in format_.feedback)
    yield from (f"a=rtcp-fb:* {value}" for value in wildcard)


def _attribute_lines(attributes: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    return (f"a={name}" if value is None else f"a={name}:{value}" for name, value in attributes)


def _connection_line(address: str) -> str:
    return f"c=IN {_family(address)} {address}"


def _family(address: str) -> str:
    return "IP6" if ":" in address else "IP4"
