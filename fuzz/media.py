"""Harnesses of media: SDP and its negotiation, RTP, RTCP, H.264, AMR, telephone events, STUN."""

from contextlib import suppress
from dataclasses import replace

from fuzz.target import ROOT, Target, must_be_small, must_equal
from protocols.join import IceCredentials, IceLiteResponder, check_username
from protocols.net import Address
from protocols.rtp import amr, h264
from protocols.rtp.classify import classify
from protocols.rtp.feedback import Fir, Nack, Pli, Remb
from protocols.rtp.packet import RtpError, RtpPacket, payload_span, peek_header
from protocols.rtp.reports import SenderReport
from protocols.rtp.rtcp import RtcpError, RtcpPacket, UnknownPacket, compound, parse_compound
from protocols.rtp.telephone_event import EventReceiver, TelephoneEvent, TelephoneEventError
from protocols.sdp import AmrFormat, H264Format, SdpError, answer_media, parse, reject, select_format

PREFERENCES = ("AMR/8000;octet-align=1", "AMR/8000", "PCMU/8000", "H264;packetization-mode=1", "H264")


def read_sdp(data: bytes) -> None:
    """A description: written and read again it is the same; an answer to it can be written and read."""
    try:
        session = parse(data)
    except SdpError:
        return
    try:
        written = session.serialise()
    except SdpError:
        written = b""
    if written:
        must_be_small(written, data)
        must_equal(parse(written).serialise(), written)
    answered = []
    for media in session.media:
        chosen = select_format(media, PREFERENCES)
        formats = () if chosen is None else (chosen,)
        answered.append(
            answer_media(media, port=9, connection="192.0.2.1", formats=formats) if formats else reject(media)
        )
        for format_ in media.formats:
            AmrFormat.from_fmtp(format_.fmtp).fmtp()
            H264Format.from_fmtp(format_.fmtp).fmtp()
    with suppress(SdpError):
        answer = replace(session, media=tuple(answered)).serialise()
        must_equal(len(parse(answer).media), len(session.media))


def read_rtp(data: bytes) -> None:
    """A packet: all ways to look at it agree, and written and read again it is the same."""
    classify(data)
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    header = peek_header(data)
    must_equal((packet.sequence, packet.timestamp, packet.ssrc), (header.sequence, header.timestamp, header.ssrc))
    start, end = payload_span(data)
    must_equal(bytes(data[start:end]), bytes(packet.payload))
    must_equal(RtpPacket.parse(packet.serialise()), packet)


def read_rtcp(data: bytes) -> None:
    """A compound: written and read again it is the same."""
    try:
        packets = parse_compound(data)
    except RtcpError:
        return
    try:
        written = compound(packets)
    except RtcpError:
        return
    must_be_small(written, data)
    must_equal(_known(parse_compound(written)), _known(packets))


def _known(packets: tuple[RtcpPacket, ...]) -> list[RtcpPacket]:
    """What was understood; the order in which lost packets are named means nothing."""
    understood = [packet for packet in packets if not isinstance(packet, UnknownPacket)]
    return [replace(p, sequences=tuple(sorted(p.sequences))) if isinstance(p, Nack) else p for p in understood]


def read_h264(data: bytes) -> None:
    """Payloads of a hostile broadcaster: cut by a length byte each, sequence and timestamps from the input too."""
    depacketizer = h264.Depacketizer(max_bytes=20_000)
    at, sequence = 0, 0
    while at + 2 < len(data):
        size, flags = data[at], data[at + 1]
        payload = data[at + 2 : at + 2 + size]
        at += 2 + size
        sequence += 1 + (flags & 3 == 3)
        h264.nal_types(payload)
        h264.is_keyframe(payload)
        h264.parameter_sets(payload)
        for unit in depacketizer.push(sequence & 0xFFFF, sequence // (1 + (flags >> 4)), bool(flags & 8), payload):
            must_equal(len(unit.data) <= 2 * 20_000, True)
            with suppress(h264.H264Error):
                h264.packetize(h264.split_annex_b(unit.data))
    h264.split_annex_b(data)


def read_amr(data: bytes) -> None:
    """A payload in either packing; converted there and back it is the same."""
    for aligned in (False, True):
        for wideband in (False, True):
            try:
                payload = amr.parse(data, octet_align=aligned, wideband=wideband)
                other = amr.convert(data, aligned, not aligned, wideband=wideband)
            except amr.AmrError:
                continue
            must_equal(amr.parse(other, octet_align=not aligned, wideband=wideband).frames, payload.frames)


def read_telephone_event(data: bytes) -> None:
    """Keys: four octets each, and whatever order they come in."""
    receiver = EventReceiver()
    for at in range(0, len(data), 6):
        with suppress(TelephoneEventError):
            piece = data[at + 2 : at + 6]
            event = TelephoneEvent.parse(piece)
            must_equal(TelephoneEvent.parse(event.serialise()), event)
            receiver.receive(int.from_bytes(data[at : at + 2], "big"), piece)
    receiver.flush()


_STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12


def read_stun(data: bytes) -> None:
    """A check from whoever does not know the password: perhaps answered, never believed, never amplified."""
    responder = IceLiteResponder(IceCredentials("ab", "p" * 24))
    framed = _STUN[:2] + (len(data) & 0xFFFC).to_bytes(2, "big") + _STUN[4:] + data
    for datagram in (data, framed[: 20 + (len(data) & 0xFFFC)]):
        check_username(datagram)
        result = responder.receive(datagram, Address("192.0.2.1", 9), 0.0)
        must_equal(result.authenticated, False)
        must_equal(len(result.reply or b"") <= len(datagram) + 100, True)


def _sdp() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "tests" / "protocols" / "sdp_samples").glob("*"))]


_RTCP = (
    compound([SenderReport(1, 2 << 32, 3, 4, 5, ()), Pli(1, 2)]),
    compound([Nack(1, 2, (3, 4, 30)), Fir(1, ((2, 1),)), Remb(1, 500_000, (2,))]),
)
_H264 = (b"\x04\x08\x67\x42\x00\x1e\x06\x08\x7c\x85\x88\x80\x01\x02\x06\x08\x7c\x45\x01\x02\x03\x04",)

TARGETS = (
    Target("sdp", read_sdp, _sdp, 40_000),
    Target("rtp", read_rtp, lambda: [RtpPacket(96, 1, 2, 3, b"x", marker=True).serialise()], 1600),
    Target("rtcp", read_rtcp, lambda: _RTCP, 1600),
    Target("h264", read_h264, lambda: _H264, 8192),
    Target("amr", read_amr, lambda: [b"\xf0\x3c" + bytes(31), b"\x0b\xd0" + bytes(31)], 1600),
    Target("telephone-event", read_telephone_event, lambda: [b"\0\1\5\x8a\0\xa0" * 3], 600),
    Target("stun", read_stun, lambda: [_STUN, b"\0\6\0\4ab:c\x80\x28\0\4abcd"], 1600),
)
