"""Reading session descriptions (RFC 8866 section 9), lenient where phones are sloppy.

Refused is only what leaves nothing to answer: no v=0, no usable o= or m= line, too much of anything. Line ends may
be bare LF; unknown lines are skipped; an attribute whose value makes no sense is kept verbatim, not believed.
"""

from dataclasses import dataclass, field
from typing import get_args

from protocols.sdp.description import (
    Attributes,
    Candidate,
    Direction,
    Format,
    Media,
    Origin,
    SdpError,
    SessionDescription,
    is_rtp_protocol,
)

MAX_BYTES = 32_768
MAX_MEDIA = 32
MAX_FORMATS = 128
MAX_CANDIDATES = 64
MAX_FEEDBACK = 32
MAX_FEEDBACK_LINES = 256
"""A line for all formats costs as much as there are formats."""

STATIC_FORMATS: dict[int, tuple[str, int]] = {
    0: ("PCMU", 8000),
    3: ("GSM", 8000),
    4: ("G723", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    13: ("CN", 8000),
    18: ("G729", 8000),
    26: ("JPEG", 90000),
    31: ("H261", 90000),
    34: ("H263", 90000),
}
"""Payload types that need no rtpmap (RFC 3551 section 6), those still met on phones."""

_READ = frozenset(
    {
        "rtpmap",
        "fmtp",
        "rtcp-fb",
        "rtcp",
        "rtcp-mux",
        "ice-lite",
        "ice-ufrag",
        "ice-pwd",
        "candidate",
        "setup",
        "connection",
        "mid",
        "label",
        "ptime",
    }
)
"""Attributes with a field of their own, at session or media level."""
_DIRECTIONS: dict[str, Direction] = {direction: direction for direction in get_args(Direction)}


@dataclass(slots=True)
class _Section:
    """The lines of the session part or of one m-line, sorted by what reads them."""

    media_line: str = ""
    connection: str = ""
    bandwidth: list[tuple[str, int]] = field(default_factory=list)
    direction: Direction | None = None
    read: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _READ})
    """Values of the attributes that have a field of their own, by name."""
    kept: list[tuple[str, str | None]] = field(default_factory=list)
    """All other attributes in order."""

    def add(self, attribute: str) -> None:
        """Sort in one a= line."""
        name, colon, value = attribute.partition(":")
        if name in _DIRECTIONS:
            self.direction = _DIRECTIONS[name]
        elif name in self.read:
            self.read[name].append(value.strip())
        else:
            self.kept.append((name, value.strip() if colon else None))

    def last(self, name: str, default: str = "") -> str:
        """The last value of an attribute."""
        return self.read[name][-1] if self.read[name] else default


def parse(data: bytes | str) -> SessionDescription:
    """The description in a message body; raises SdpError."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    if len(text) > MAX_BYTES:
        raise SdpError("session description too long")
    session, origin, name = _Section(), None, "-"
    sections = [session]
    lines = [line for line in text.replace("\0", "").replace("\r", "\n").split("\n") if line.strip()]
    if not lines or lines[0].strip() != "v=0":
        raise SdpError("no v=0 line")
    for line in lines[1:]:
        kind, equals, value = line[:1], line[1:2], line[2:].strip()
        if equals != "=":
            raise SdpError(f"not an SDP line: {line[:40]!r}")
        section = sections[-1]
        match kind:
            case "o" if origin is None:
                origin = _origin(value)
            case "s" if len(sections) == 1:
                name = value or "-"
            case "m":
                if len(sections) > MAX_MEDIA:
                    raise SdpError("too many media")
                sections.append(_Section(value))
            case "c" if not section.connection:
                section.connection = _connection(value)
            case "b":
                bandwidth_kind, _, amount = value.partition(":")
                if bandwidth_kind and (kbits := _number(amount)) is not None:
                    section.bandwidth.append((bandwidth_kind, kbits))
            case "a" if value:
                section.add(value)
    if origin is None:
        raise SdpError("no o= line")
    common = _Common(
        connection=session.connection,
        direction=session.direction or "sendrecv",
        ice_ufrag=session.last("ice-ufrag"),
        ice_pwd=session.last("ice-pwd"),
        setup=session.last("setup"),
    )
    return SessionDescription(
        origin=origin,
        name=name,
        connection=session.connection,
        bandwidth=tuple(session.bandwidth),
        ice_lite=bool(session.read["ice-lite"]),
        attributes=tuple(session.kept),
        media=tuple(_media(section, common) for section in sections[1:]),
    )


@dataclass(frozen=True, slots=True)
class _Common:
    """Session-level values that hold for every medium that does not say otherwise."""

    connection: str
    direction: Direction
    ice_ufrag: str
    ice_pwd: str
    setup: str


def _media(section: _Section, common: _Common) -> Media:
    fields = section.media_line.split()
    if len(fields) < 3:
        raise SdpError("m= line with fewer than three fields")
    kind, port_text, protocol, *tokens = fields
    port = _number(port_text.partition("/")[0])
    if port is None or port > 0xFFFF or len(tokens) > MAX_FORMATS:
        raise SdpError(f"bad m= line: {section.media_line[:40]!r}")
    is_rtp = is_rtp_protocol(protocol)
    formats = _formats(tokens, section) if is_rtp else ()
    candidates, odd_candidates = _candidates(section)
    rtcp_port = _number((section.last("rtcp").split() or [""])[0])
    ptime = _number(section.last("ptime"))
    media = Media(
        kind=kind,
        port=port,
        protocol=protocol,
        formats=formats,
        other_formats=() if is_rtp else tuple(tokens),
        connection=section.connection or common.connection,
        direction=section.direction or common.direction,
        bandwidth=tuple(section.bandwidth),
        rtcp_port=rtcp_port if rtcp_port is None or rtcp_port <= 0xFFFF else None,
        rtcp_mux=bool(section.read["rtcp-mux"]),
        ice_ufrag=section.last("ice-ufrag", common.ice_ufrag),
        ice_pwd=section.last("ice-pwd", common.ice_pwd),
        candidates=candidates,
        setup=section.last("setup", common.setup).lower(),
        tcp_connection=section.last("connection").lower(),
        mid=section.last("mid"),
        label=section.last("label"),
        ptime=ptime,
        attributes=(*section.kept, *odd_candidates),
    )
    if is_rtp and not formats and port:
        raise SdpError("RTP m= line without a payload type")
    return media


def _formats(tokens: list[str], section: _Section) -> tuple[Format, ...]:
    types = list(dict.fromkeys(number for token in tokens if (number := _number(token)) is not None))
    maps: dict[int, tuple[str, int, int]] = {
        number: (*STATIC_FORMATS[number], 1) for number in types if number in STATIC_FORMATS
    }
    for value in section.read["rtpmap"]:
        number, encoding = _numbered(value)
        name, _, rate_text = encoding.partition("/")
        rate, _, channels = rate_text.partition("/")
        clock_rate = _number(rate)
        if number is not None and name.strip() and clock_rate:
            maps[number] = (name.strip(), clock_rate, _number(channels) or 1)
    parameters = {number: rest for number, rest in map(_numbered, section.read["fmtp"]) if number is not None}
    feedback: dict[int, list[str]] = {number: [] for number in types}
    for value in section.read["rtcp-fb"][:MAX_FEEDBACK_LINES]:
        target, _, kind = value.partition(" ")
        number = _number(target)
        for each in types if target == "*" else [number] if number in types else []:
            known = feedback[each]
            if kind.strip() and len(known) < MAX_FEEDBACK and kind.strip() not in known:
                known.append(kind.strip())
    return tuple(
        Format(
            number,
            *maps.get(number, ("", 0, 1)),
            fmtp=parameters.get(number, ""),
            feedback=tuple(feedback[number]),
        )
        for number in types
        if number < 128
    )


def _candidates(section: _Section) -> tuple[tuple[Candidate, ...], Attributes]:
    good: list[Candidate] = []
    odd: list[tuple[str, str | None]] = []
    for value in section.read["candidate"]:
        candidate = _candidate(value)
        if candidate is None:
            odd.append(("candidate", value))
        elif len(good) < MAX_CANDIDATES:
            good.append(candidate)
    return tuple(good), tuple(odd)


def _candidate(value: str) -> Candidate | None:
    words = value.split()
    if len(words) < 8 or words[6].lower() != "typ":
        return None
    component, priority, port = _number(words[1]), _number(words[3]), _number(words[5])
    if component is None or priority is None or port is None or port > 0xFFFF:
        return None
    extra = tuple(zip(words[8::2], words[9::2], strict=False))
    return Candidate(words[0], component, words[2], priority, words[4], port, words[7], extra)


def _origin(value: str) -> Origin:
    fields = value.split()
    if len(fields) != 6:
        raise SdpError("o= line without its six fields")
    session_id, version = _number(fields[1]), _number(fields[2])
    return Origin(fields[0], session_id or 0, version or 0, fields[5])


def _connection(value: str) -> str:
    fields = value.split()
    if len(fields) < 3:
        raise SdpError("c= line without an address")
    return fields[2].partition("/")[0]


def _numbered(value: str) -> tuple[int | None, str]:
    number, _, rest = value.partition(" ")
    return _number(number), rest.strip()


def _number(text: str) -> int | None:
    """A decimal of at most 20 digits (o= lines carry 64-bit numbers), or None."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None
