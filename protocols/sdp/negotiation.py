"""How an answer follows from an offer: direction, format and m-line (RFC 3264 section 6, RFC 4867 8.3, RFC 6184 8.2).

Preferences are written as in the configuration: "AMR/8000;octet-align=1", "H264;packetization-mode=0", "PCMU/8000".
"""

from collections.abc import Iterable
from dataclasses import replace

from protocols.sdp.description import Direction, Format, Media
from protocols.sdp.formats import CONSTRAINED_BASELINE, AmrFormat, H264Format, parse_fmtp

_DIRECTION_OF: dict[tuple[bool, bool], Direction] = {
    (True, True): "sendrecv",
    (True, False): "sendonly",
    (False, True): "recvonly",
    (False, False): "inactive",
}
_DEFAULT_CLOCK_RATE = {"H264": 90000}


def sends(direction: Direction) -> bool:
    """True if the side that states this direction sends media."""
    return direction in {"sendrecv", "sendonly"}


def receives(direction: Direction) -> bool:
    """True if the side that states this direction receives media."""
    return direction in {"sendrecv", "recvonly"}


def answer_direction(offered: Direction, wanted: Direction) -> Direction:
    """The direction nearest to `wanted` (the answerer's view) that the offer allows."""
    return _DIRECTION_OF[sends(wanted) and receives(offered), receives(wanted) and sends(offered)]


def matches(format_: Format, preference: str) -> bool:
    """True if an offered format is what a preference asks for, codec parameters included.

    AMR agrees on octet alignment, absent meaning bandwidth-efficient; H.264 agrees on the packetization mode, absent
    meaning 0, and its receiver must decode constrained baseline.
    """
    codec, _, fmtp = preference.partition(";")
    name, _, rate = codec.strip().partition("/")
    clock_rate = int(rate) if rate.isdigit() else _DEFAULT_CLOCK_RATE.get(name.upper())
    if not format_.is_codec(name) or format_.channels != 1 or clock_rate not in {None, format_.clock_rate}:
        return False
    match name.upper():
        case "AMR" | "AMR-WB":
            amr = AmrFormat.from_fmtp(format_.fmtp)
            return amr.usable and amr.octet_align == AmrFormat.from_fmtp(fmtp).octet_align
        case "H264":
            h264, wanted = H264Format.from_fmtp(format_.fmtp), H264Format.from_fmtp(fmtp)
            stream = replace(CONSTRAINED_BASELINE, packetization_mode=wanted.packetization_mode)
            return h264.packetization_mode == wanted.packetization_mode and h264.decodes(stream)
    return parse_fmtp(fmtp).items() <= parse_fmtp(format_.fmtp).items()


def select_format(media: Media, preferences: Iterable[str]) -> Format | None:
    """The offered format that meets the earliest preference, the offerer's order deciding between equals."""
    for preference in preferences:
        for format_ in media.formats:
            if matches(format_, preference):
                return format_
    return None


def answer_amr(offered: Format) -> Format:
    """The AMR format to answer with: alignment and mode restrictions echoed, never dropped (RFC 4867 8.3.1)."""
    return replace(offered, fmtp=AmrFormat.from_fmtp(offered.fmtp).fmtp())


def answer_h264(offered: H264Format, ours: H264Format) -> H264Format | None:
    """The parameters to answer with, or None if there is no common ground (RFC 6184 8.2.2).

    Profile and packetization mode are symmetric, so they come from the offer; the level is our own if both sides
    allow asymmetry, else the lower of the two.
    """
    if offered.packetization_mode not in {0, ours.packetization_mode}:
        return None
    if not (
        offered.decodes(replace(ours, packetization_mode=0)) or ours.decodes(replace(offered, packetization_mode=0))
    ):
        return None
    asymmetric = offered.level_asymmetry_allowed and ours.level_asymmetry_allowed
    source = ours if asymmetric or ours.level_rank < offered.level_rank else offered
    return H264Format(
        profile_level_id=_with_level_of(offered, source),
        packetization_mode=offered.packetization_mode,
        level_asymmetry_allowed=asymmetric,
        parameter_sets=ours.parameter_sets,
    )


def answer_media(
    offered: Media, *, port: int, connection: str, formats: tuple[Format, ...], direction: Direction = "sendrecv"
) -> Media:
    """The m-line answering `offered`: its kind, transport and mid, rtcp-mux and feedback only as far as offered.

    `direction` is what the answerer wants. ICE credentials, candidates and TCP roles are the caller's to add.
    """
    return Media(
        kind=offered.kind,
        port=port,
        protocol=offered.protocol,
        formats=tuple(_with_offered_feedback(format_, offered) for format_ in formats),
        connection=connection,
        direction=answer_direction(offered.direction, direction),
        rtcp_mux=offered.rtcp_mux,
        mid=offered.mid,
    )


def reject(offered: Media) -> Media:
    """The m-line that refuses `offered`: port 0 and one of its formats, since the line must name some."""
    return Media(
        kind=offered.kind,
        port=0,
        protocol=offered.protocol,
        formats=tuple(replace(format_, fmtp="", feedback=()) for format_ in offered.formats[:1]),
        other_formats=offered.other_formats,
        connection=offered.connection,
        mid=offered.mid,
    )


def _with_offered_feedback(format_: Format, offered: Media) -> Format:
    theirs = offered.format(format_.payload_type)
    allowed = theirs.feedback if theirs else ()
    return replace(format_, feedback=tuple(value for value in format_.feedback if value in allowed))


def _with_level_of(profile: H264Format, source: H264Format) -> int:
    """The profile bits of one and the level of the other, level 1b included (constraint_set3 carries it)."""
    set3 = 0x1000
    is_1b = source.level_rank == 105
    level = 11 if is_1b else source.profile_level_id & 0xFF
    return profile.profile_level_id & ~(0xFF | set3) | (set3 if is_1b else 0) | level
