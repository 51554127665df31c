"""Offer and answer for broadcasts (RFC 3264): a group's payload formats, and the typed legs the relay is handed.

All negotiation is done here; the relay never sees SDP. A group has one audio and one video format, those of its
broadcaster. A viewer lacking one of them gets that m-line refused; lacking both, 488.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter

from protocols.control import LegInfo, LegMedia, LegSpec, MediaKind, MediaSpec
from protocols.net import Address, is_host
from protocols.rtp.telephone_event import CLOCK_RATE, EVENTS, NAME
from protocols.sdp import (
    AmrFormat,
    Candidate,
    Direction,
    Format,
    H264Format,
    Media,
    Origin,
    SdpError,
    SessionDescription,
    answer_amr,
    answer_direction,
    answer_media,
    parse,
    reject,
    select_format,
)
from protocols.sdp.negotiation import receives, sends
from provisioning.config import MediaConfig
from sip_app.broadcast.our_offer import NOWHERE, willing_peer
from sip_app.calls.incoming import Rejected

Role = Literal["source", "sink"]

FEEDBACK = ("nack", "nack pli", "ccm fir")
"""RTCP feedback the relay understands (RFC 4585, RFC 5104); answered as far as offered."""
HOST_PRIORITY = (126 << 24) + (65535 << 8)
"""Priority of a host candidate before its component is taken off (RFC 8445 section 5.1.2.1)."""

_SPOKEN = ("PCMU/8000", "PCMA/8000", "AMR/8000")
"""Formats there may be recorded prompts in."""

# What the answer wants where the offer leaves it open. A phone's sendrecv audio is answered sendrecv, as many phones
# take anything less for "on hold" and fall silent; what a viewer says is dropped by the relay.
_WANTED: dict[tuple[Role, str], Direction] = {
    ("source", "audio"): "sendrecv",
    ("source", "video"): "recvonly",
    ("sink", "audio"): "sendrecv",
    ("sink", "video"): "sendonly",
}


@dataclass(frozen=True, slots=True)
class GroupFormat:
    """The one payload format a group has for a medium."""

    kind: MediaKind
    codec: str
    clock_rate: int
    fmtp: str


_GROUP_MEDIA = TypeAdapter(tuple[GroupFormat, ...])


def dump_formats(formats: tuple[GroupFormat, ...]) -> str:
    """The formats as they are stored with the broadcast."""
    return _GROUP_MEDIA.dump_json(formats).decode()


def load_formats(text: str) -> tuple[GroupFormat, ...]:
    """The formats of a stored broadcast; ValueError if it holds none."""
    return _GROUP_MEDIA.validate_json(text)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One m-line of the offer that is accepted: by its place, with the answered format and direction."""

    index: int
    kind: MediaKind
    offered: Media
    format: Format
    direction: Direction
    keys: Format | None = None
    """The telephone events that go with it (RFC 4733), where they were offered at its clock rate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is accepted of an offer, before the relay has said where the media goes."""

    offer: SessionDescription
    role: Role
    chosen: tuple[Chosen, ...]
    ours: bool = False
    """True when there was no offer: what `answer` gives is ours, and where the peer is comes with the ACK."""

    @property
    def ice(self) -> bool:
        """True when every accepted m-line came with ICE credentials."""
        return all(line.offered.has_ice for line in self.chosen)

    @property
    def hears(self) -> bool:
        """True if its peer takes sound from us, at an address that is one."""
        return any(
            line.kind == "audio" and sends(line.direction) and is_host(line.offered.connection) for line in self.chosen
        )

    @property
    def speakable(self) -> bool:
        """True if there are recorded prompts in its audio format."""
        return any(line.kind == "audio" and _recorded(line.format) for line in self.chosen)

    @property
    def formats(self) -> tuple[GroupFormat, ...]:
        """The group's formats, when this is its broadcaster's plan."""
        return tuple(
            GroupFormat(line.kind, line.format.name.upper(), line.format.clock_rate, line.format.fmtp)
            for line in self.chosen
        )

    def leg(self, leg_id: str, number: str, client_address: str) -> LegSpec:
        """The leg to ask the relay for."""
        return LegSpec(leg_id, number, client_address, tuple(self._spec(line) for line in self.chosen))

    def answer(self, leg: LegInfo, session_id: int, version: int = 0, video_bitrate: int | None = None) -> bytes:
        """The SDP answer that sends the peer to the relay's addresses; `video_bitrate` in bit/s caps a broadcaster."""
        places: dict[MediaKind, LegMedia] = {media.kind: media for media in leg.media}
        accepted = {line.index: line for line in self.chosen}
        lines: list[Media] = []
        for index, offered in enumerate(self.offer.media):
            line = accepted.get(index)
            place = places.get(line.kind) if line else None
            lines.append(_answer_line(line, place, video_bitrate) if line and place else reject(offered))
        host = leg.media[0].rtp.host
        return SessionDescription(
            origin=Origin("dialcast", session_id, version, host),
            name="dialcast",
            connection=host,
            ice_lite=self.ice,
            media=tuple(lines),
        ).serialise()

    def _spec(self, line: Chosen) -> MediaSpec:
        offered = line.offered
        host = offered.connection if is_host(offered.connection) else NOWHERE
        return MediaSpec(
            kind=line.kind,
            codec=line.format.name.upper(),
            payload_type=line.format.payload_type,
            clock_rate=line.format.clock_rate,
            sends=self.role == "sink" and sends(line.direction) and host != NOWHERE,
            receives=receives(line.direction),
            rtp=Address(host, offered.port),
            rtcp=Address(host, offered.control_port),
            fmtp=line.format.fmtp,
            rtcp_mux=offered.rtcp_mux,
            ice=offered.has_ice,
            remote_ufrag=offered.ice_ufrag,
            feedback=tuple(name for name in FEEDBACK if name in line.format.feedback),
            telephone_event=line.keys.payload_type if line.keys is not None else None,
        )


def silenced(spec: LegSpec) -> LegSpec:
    """The leg reserved, with nothing sent to it yet."""
    return replace(spec, media=tuple(replace(medium, sends=False) for medium in spec.media))


def plan_source(body: bytes, config: MediaConfig) -> Plan:
    """What a new broadcaster may send, by configured preference; no body: our offer. `Rejected` 400 or 488."""
    return _plan(body, "source", {"audio": config.audio, "video": config.video})


def plan_leg(body: bytes, role: Role, formats: Iterable[GroupFormat]) -> Plan:
    """What a viewer, or a broadcaster who is back, can have of a group's formats. `Rejected` 400 or 488."""
    return _plan(body, role, {fmt.kind: tuple(_compatible(fmt, role)) for fmt in formats})


def plan_announcement(offer: bytes | SessionDescription, config: MediaConfig) -> Plan:
    """What a caller can have of an announcement: sound in a format there are recordings in. `Rejected` 400 or 488."""
    audio = [preference for preference in config.audio if preference.startswith(_SPOKEN)]
    plan = _plan(offer, "sink", {"audio": audio})
    if not plan.speakable:  # an AMR mode set without the recorded mode
        plan = _plan(offer, "sink", {"audio": [name for name in audio if not name.startswith("AMR")]})
    return plan


def _plan(given: bytes | SessionDescription, role: Role, preferences: Mapping[MediaKind, Sequence[str]]) -> Plan:
    try:
        read = parse(given) if isinstance(given, bytes) and given else given
        offer = read if isinstance(read, SessionDescription) else willing_peer(preferences, FEEDBACK)
    except SdpError as error:
        raise Rejected(400, f"Malformed SDP: {error}"[:80].replace("\r", " ").replace("\n", " ")) from None
    chosen: list[Chosen] = []
    for index, offered in enumerate(offer.media):
        kind = _kind(offered)
        if kind is None or offered.rejected or not offered.is_rtp or offered.is_tcp or offered.is_secure:
            continue
        if kind in {line.kind for line in chosen}:
            continue
        if found := select_format(offered, preferences.get(kind, ())):
            direction = answer_direction(offered.direction, _WANTED[role, kind])
            chosen.append(Chosen(index, kind, offered, _answered(found), direction, _keys(offered, found)))
    if not chosen:
        wanted = "; ".join(f"{kind} {' or '.join(names)}" for kind, names in preferences.items() if names)
        raise Rejected(488, None, [("Warning", f'304 dialcast "No format in common; supported: {wanted}"')])
    return Plan(offer, role, tuple(chosen), ours=not given)


def _compatible(fmt: GroupFormat, role: Role) -> Iterator[str]:
    """Preferences under which the relay can serve a leg: AMR packing is converted, H.264 packets are not."""
    match fmt.codec:
        case "AMR" | "AMR-WB":
            name = f"{fmt.codec}/{fmt.clock_rate}"
            packings = (f"{name};octet-align=1", name)
            yield from packings if AmrFormat.from_fmtp(fmt.fmtp).octet_align else reversed(packings)
        case "H264":
            mode = H264Format.from_fmtp(fmt.fmtp).packetization_mode
            yield f"H264;packetization-mode={mode}"
            # Single NAL unit packets are legal in mode 1, never the other way round (RFC 6184 section 6).
            if (mode == 0) == (role == "sink"):
                yield f"H264;packetization-mode={1 - mode}"
        case _:
            yield f"{fmt.codec}/{fmt.clock_rate}"


def _keys(offered: Media, chosen: Format) -> Format | None:
    """The telephone events to answer with: at the sound's clock rate, as RFC 4733 section 2.1 wants."""
    if offered.kind != "audio":
        return None
    return next(
        (
            replace(found, fmtp=EVENTS, feedback=())
            for found in offered.formats
            if found.is_codec(NAME) and found.clock_rate == chosen.clock_rate == CLOCK_RATE
        ),
        None,
    )


def _recorded(fmt: Format) -> bool:
    return fmt.name.upper() in ("PCMU", "PCMA") or (fmt.is_codec("AMR") and AmrFormat.from_fmtp(fmt.fmtp).speaks_best)


def _answered(offered: Format) -> Format:
    """The format as it is answered: parameters echoed as the codec's rules ask, feedback we understand."""
    match offered.name.upper():
        case "AMR" | "AMR-WB":
            return answer_amr(offered)
        case "H264":
            # The sender's sprop-parameter-sets stay: the relay injects them when they never come in band.
            return replace(offered, fmtp=H264Format.from_fmtp(offered.fmtp).fmtp())
    return offered


def _answer_line(line: Chosen, place: LegMedia, video_bitrate: int | None) -> Media:
    fmt = line.format
    if fmt.is_codec("H264"):
        fmt = replace(fmt, fmtp=replace(H264Format.from_fmtp(fmt.fmtp), parameter_sets=()).fmtp())
    answered = answer_media(
        line.offered,
        port=place.rtp.port,
        connection=place.rtp.host,
        formats=(
            replace(fmt, feedback=FEEDBACK if line.kind == "video" else ()),
            *([line.keys] if line.keys is not None else []),
        ),
        direction=line.direction,
    )
    if not answered.rtcp_mux and place.rtcp.port != place.rtp.port + 1:
        answered = replace(answered, rtcp_port=place.rtcp.port)
    if video_bitrate and line.kind == "video":
        answered = replace(answered, bandwidth=(("AS", video_bitrate // 1000),))
    if line.offered.has_ice:
        components = [place.rtp] if answered.rtcp_mux else [place.rtp, place.rtcp]
        answered = replace(
            answered,
            ice_ufrag=place.ufrag,
            ice_pwd=place.password,
            candidates=tuple(
                Candidate("1", component, "UDP", HOST_PRIORITY + 256 - component, where.host, where.port)
                for component, where in enumerate(components, start=1)
            ),
        )
    return answered


def _kind(media: Media) -> MediaKind | None:
    match media.kind:
        case "audio" | "video" as kind:
            return kind
    return None
