"""RTP packets, number unwrapping and telling protocols apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.rtp.classify import classify
from protocols.rtp.packet import Extension, RtpError, RtpPacket, payload_of, peek_header, rewrite_header
from protocols.rtp.sequence import TIMESTAMP_BITS, Unwrapper, difference, extend

words = st.integers(0, 0xFFFFFFFF)
extensions = st.builds(
    Extension,
    profile=st.integers(0, 0xFFFF),
    data=st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]),
)
packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=words,
    ssrc=words,
    payload=st.binary(max_size=100),
    marker=st.booleans(),
    csrcs=st.lists(words, max_size=15).map(tuple),
    extension=st.none() | extensions,
    padding=st.integers(0, 255),
)


@given(packets)
def test_a_packet_survives_the_wire(packet: RtpPacket) -> None:
    data = packet.serialise()
    assert RtpPacket.parse(data) == packet
    assert RtpPacket.parse(memoryview(data)) == packet
    assert payload_of(memoryview(data)) == packet.payload


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\xbf" + tail))
def test_garbage_raises_rtp_error_or_is_a_packet(data: bytes) -> None:
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    assert len(packet.payload) <= len(data) - 12


def test_header_as_the_rfc_draws_it() -> None:
    data = bytes.fromhex("80e1 1234 00000001 deadbeef") + b"pay"
    assert peek_header(data) == (97, True, 0x1234, 1, 0xDEADBEEF)
    assert RtpPacket.parse(data).payload == b"pay"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(12),
        bytes.fromhex("81000000 00000000 00000000"),
        bytes.fromhex("90000000 00000000 00000000"),
        bytes.fromhex("90000000 00000000 00000000 bede0001"),
        bytes.fromhex("a0000000 00000000 00000000 00"),
        bytes.fromhex("a0000000 00000000 00000000 02"),
    ],
)
def test_truncated_packets_are_refused(data: bytes) -> None:
    with pytest.raises(RtpError):
        RtpPacket.parse(data)


@given(packets, packets)
def test_rewriting_changes_only_the_numbers(packet: RtpPacket, other: RtpPacket) -> None:
    rewritten = RtpPacket.parse(
        rewrite_header(
            packet.serialise(),
            payload_type=other.payload_type,
            sequence=other.sequence + 0x10000,
            timestamp=other.timestamp,
            ssrc=other.ssrc,
        )
    )
    assert (rewritten.payload_type, rewritten.sequence) == (other.payload_type, other.sequence)
    assert (rewritten.timestamp, rewritten.ssrc) == (other.timestamp, other.ssrc)
    assert (rewritten.payload, rewritten.marker) == (packet.payload, packet.marker)
    assert (rewritten.csrcs, rewritten.extension) == (packet.csrcs, packet.extension)


def test_the_marker_can_be_set_while_rewriting() -> None:
    data = RtpPacket(96, 1, 2, 3, b"x").serialise()
    assert peek_header(rewrite_header(data, payload_type=97, sequence=5, timestamp=6, ssrc=7, marker=True)) == (
        97,
        True,
        5,
        6,
        7,
    )


def test_values_without_room_in_the_header_are_refused() -> None:
    with pytest.raises(RtpError):
        RtpPacket(128, 0, 0, 0).serialise()
    with pytest.raises(RtpError):
        RtpPacket(0, 0, 0, 0, extension=Extension(1, b"abc")).serialise()


@given(st.integers(0, 1 << 40), st.lists(st.integers(-1000, 30000), max_size=50))
def test_unwrapping_follows_the_sender_across_wraps(start: int, steps: list[int]) -> None:
    unwrapper = Unwrapper()
    true = start
    offset = unwrapper.unwrap(true & 0xFFFF) - true
    highest = true
    for step in steps:
        true = highest + step
        assert unwrapper.unwrap(true & 0xFFFF) - true == offset
        highest = max(highest, true)


def test_timestamps_unwrap_at_32_bits() -> None:
    unwrapper = Unwrapper(TIMESTAMP_BITS)
    assert [unwrapper.unwrap(value) for value in (0xFFFFFF00, 0x100, 0xFFFFFFF0)] == [
        0xFFFFFF00,
        0x1_0000_0100,
        0xFFFFFFF0,
    ]


def test_difference_takes_the_shorter_way() -> None:
    assert difference(2, 0xFFFE) == 4
    assert difference(0xFFFE, 2) == -4
    assert extend(1, 0x2FFFF) == 0x30001


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bytes.fromhex("000100002112a442") + bytes(12), "stun"),
        (bytes.fromhex("0001000000000000") + bytes(12), "unknown"),
        (bytes((22, 254, 253)) + bytes(20), "dtls"),
        (bytes((0x80, 97)) + bytes(10), "rtp"),
        (bytes((0x80, 0xE1)) + bytes(10), "rtp"),
        (bytes((0x80, 97)) + bytes(9), "unknown"),
        (bytes((0x81, 200)) + bytes(26), "rtcp"),
        (bytes((0x81, 206)) + bytes(10), "rtcp"),
        (b"\r\n\r\n", "unknown"),
        (b"", "unknown"),
        (b"\xff" * 40, "unknown"),
    ],
)
def test_datagrams_are_told_apart(data: bytes, kind: str) -> None:
    assert classify(data) == kind
    assert classify(memoryview(data)) == kind
