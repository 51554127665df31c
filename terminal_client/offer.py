"""Our side of offer and answer (RFC 3264) for one audio and one video m-line, with ICE credentials on each (RFC 8839).

`describe` writes the m-sections that the phone proposes, `answer` turns them into the answer to somebody else's offer,
`read` takes from the far end's description what the media side needs. They are text because PJSUA owns the session
part (origin, version) and lives in another process. Offers stay small: an INVITE should fit one datagram.
"""

import re
from dataclasses import replace

from protocols.net import Address, is_host
from protocols.rtp import telephone_event
from protocols.sdp import (
    Candidate,
    Direction,
    Format,
    Media,
    SdpError,
    SessionDescription,
    answer_amr,
    answer_direction,
    answer_media,
    parse,
    reject,
    select_format,
)
from terminal_client.streams import LocalMedia, LocalStream, Medium, RemoteMedia, RemoteStream

FEEDBACK = ("nack", "nack pli", "ccm fir")
AMR = (Format(96, "AMR", 8000, fmtp="octet-align=1"), Format(97, "AMR", 8000))
G711 = (Format(0, "PCMU", 8000), Format(8, "PCMA", 8000))
KEYS = Format(101, telephone_event.NAME, telephone_event.CLOCK_RATE, fmtp=telephone_event.EVENTS)
H264 = (
    Format(99, "H264", 90000, fmtp="profile-level-id=42e01f;packetization-mode=1", feedback=FEEDBACK),
    Format(98, "H264", 90000, fmtp="profile-level-id=42e01f", feedback=FEEDBACK),
)
PREFERENCES: dict[Medium, tuple[str, ...]] = {
    "audio": ("AMR/8000;octet-align=1", "AMR/8000", "PCMU/8000", "PCMA/8000"),
    "video": ("H264;packetization-mode=1", "H264;packetization-mode=0"),
}
HOST_PRIORITY = (126 << 24) + (65535 << 8) + 255
"""RFC 8445 section 5.1.2.1: a host candidate, the only interface, component 1."""
SESSION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


def describe(local: LocalMedia, direction: Direction, *, amr: bool = True) -> str:
    """The m-sections for our ports. `amr` False where the SIP stack cannot negotiate it.

    Who only watches says nothing but may press keys, which travel as sound does: its audio is sendrecv.
    """
    sounds = (*AMR, *G711, KEYS) if amr else (*G711, KEYS)
    audio = _media("audio", local.host, local.audio, sounds, "sendrecv" if direction == "recvonly" else direction)
    return _text(audio, _media("video", local.host, local.video, H264, direction))


def describe_inactive(host: str) -> str:
    """One silent m-line for a call that only carries a code. Port 9 (discard): port 0 would refuse the call."""
    return _text(Media("audio", 9, formats=G711, connection=host, direction="inactive"))


def session_part(sdp: str) -> str:
    """Everything before the first m-line."""
    return re.split(r"(?m)^m=", sdp, maxsplit=1)[0]


def answer(ours: str, remote: str) -> str:
    """Our m-sections as the answer to `remote`: its m-lines in its order with one format of its own each.

    Unknown media and media without a codec in common are refused with port 0. ICE is taken up with a lite agent only
    (a relay): we send checks but answer none, so between two phones it is left out, and both do without (RFC 8445).
    Raises SdpError.
    """
    wanted, theirs = {media.kind: media for media in parse(SESSION + ours).media}, parse(remote)
    ice = theirs.ice_lite
    return _text(*(_answered(offered, wanted.pop(offered.kind, None), ice) for offered in theirs.media))


def read(sdp: str, ours: str) -> RemoteMedia:
    """What the far end described, answering our m-sections or as the offer we answered. Raises SdpError."""
    theirs, mine = parse(sdp), parse(SESSION + ours)
    ice = theirs.ice_lite  # see `answer`

    def stream(kind: Medium) -> RemoteStream | None:
        remote, local = theirs.first(kind), mine.first(kind)
        if remote is None or local is None or remote.rejected or not remote.is_rtp or remote.is_tcp:
            return None
        chosen = select_format(remote, PREFERENCES[kind])
        if chosen is None or not is_host(remote.connection):
            return None
        return RemoteStream(
            address=Address(remote.connection, remote.port),
            rtcp=Address(remote.connection, remote.control_port),
            rtcp_mux=remote.rtcp_mux and local.rtcp_mux,
            codec=chosen.name.upper(),
            payload_type=chosen.payload_type,
            fmtp=chosen.fmtp,
            direction=(direction := answer_direction(remote.direction, local.direction)),
            keys=_keys(remote, chosen) if direction in ("sendrecv", "sendonly") else None,
            ufrag=remote.ice_ufrag if ice and remote.has_ice else None,
            password=remote.ice_pwd if ice and remote.has_ice else None,
        )

    return RemoteMedia(stream("audio"), stream("video"))


def _media(kind: Medium, host: str, local: LocalStream, formats: tuple[Format, ...], direction: Direction) -> Media:
    return Media(
        kind,
        local.port,
        formats=formats,
        connection=host,
        direction=direction,
        rtcp_port=local.rtcp_port if local.rtcp_port != local.port + 1 else None,
        rtcp_mux=True,
        ice_ufrag=local.ufrag,
        ice_pwd=local.password,
        candidates=(Candidate("1", 1, "UDP", HOST_PRIORITY, host, local.port),),
    )


def _answered(offered: Media, ours: Media | None, ice: bool) -> Media:
    if ours is None or offered.rejected or not offered.is_rtp or offered.is_tcp or offered.is_secure:
        return reject(offered)
    known = [name for kind, names in PREFERENCES.items() if kind == offered.kind for name in names]
    chosen = select_format(offered, known)
    if chosen is None:
        return reject(offered)
    if chosen.is_codec("AMR"):
        chosen = answer_amr(chosen)
    known_keys = (replace(KEYS, payload_type=found),) if (found := _keys(offered, chosen)) is not None else ()
    replied = answer_media(
        offered, port=ours.port, connection=ours.connection, formats=(chosen, *known_keys), direction=ours.direction
    )
    if not offered.rtcp_mux:
        replied = replace(replied, rtcp_port=ours.rtcp_port)
    if ice and offered.has_ice:
        replied = replace(replied, ice_ufrag=ours.ice_ufrag, ice_pwd=ours.ice_pwd, candidates=ours.candidates)
    return replied


def _keys(remote: Media, chosen: Format) -> int | None:
    """The payload type of telephone events at the sound's clock rate, as RFC 4733 section 2.1 wants."""
    rate = KEYS.clock_rate
    found = (one for one in remote.formats if one.is_codec(KEYS.name) and one.clock_rate == chosen.clock_rate == rate)
    return next((one.payload_type for one in found), None)


def _text(*media: Media) -> str:
    whole = SessionDescription(media=media).serialise().decode()
    return whole[len(session_part(whole)) :]


__all__ = ["SdpError", "answer", "describe", "describe_inactive", "read", "session_part"]
