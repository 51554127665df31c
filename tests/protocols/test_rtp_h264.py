"""H.264 over RTP: against real encoded footage, FFmpeg's own packetizer, losses and garbage."""

from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from math import ceil

import av
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from protocols.rtp.h264 import (
    IDR,
    PPS,
    SPS,
    AccessUnit,
    Depacketizer,
    H264Error,
    fragment,
    is_keyframe,
    join_annex_b,
    nal_types,
    packetize,
    parameter_sets,
    split_annex_b,
)
from protocols.rtp.packet import RtpPacket

LIMIT = 1200
FRAMES = 20


def undecided(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame without its source's picture type, which would make x264 code every frame as a keyframe."""
    frame = frame.reformat(format="yuv420p")
    frame.pict_type = PictureType.NONE
    return frame


@cache
def footage() -> tuple[bytes, ...]:
    """Access units as x264 writes them: 352x288, one slice a frame, a keyframe every ten frames."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 352, 288, "yuv420p"
    encoder.framerate, encoder.time_base = 15, Fraction(1, 15)
    encoder.bit_rate, encoder.gop_size = 800_000, 10
    encoder.options = {"profile": "baseline", "tune": "zerolatency", "x264-params": "sliced-threads=0"}
    with av.open(f"testsrc2=size=352x288:rate=15,trim=end_frame={FRAMES}", format="lavfi") as source:
        frames = [undecided(frame) for frame in source.decode(video=0)]
    packets = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
    return tuple(bytes(packet) for packet in packets)


def decoded(units: Iterable[bytes]) -> int:
    decoder = av.CodecContext.create("h264", "r")
    frames = sum(len(decoder.decode(av.Packet(unit))) for unit in units)
    return frames + len(decoder.decode(None))


def as_packets(units: Iterable[bytes], mode: int = 1, first_sequence: int = 65_530) -> list[RtpPacket]:
    packets: list[RtpPacket] = []
    for index, unit in enumerate(units):
        payloads = packetize(split_annex_b(unit), LIMIT, mode)
        packets += [
            RtpPacket(
                97,
                (first_sequence + len(packets) + at) & 0xFFFF,
                index * 6000,
                1,
                payload,
                at == len(payloads) - 1,
            )
            for at, payload in enumerate(payloads)
        ]
    return packets


def received(packets: Iterable[RtpPacket]) -> list[AccessUnit]:
    depacketizer = Depacketizer()
    return [
        unit
        for packet in packets
        for unit in depacketizer.push(packet.sequence, packet.timestamp, packet.marker, packet.payload)
    ]


@pytest.mark.parametrize("mode", [0, 1])
def test_real_footage_arrives_bit_for_bit_and_decodes(mode: int) -> None:
    units = received(as_packets(footage(), mode))
    assert [split_annex_b(unit.data) for unit in units] == [split_annex_b(unit) for unit in footage()]
    assert all(unit.complete and not unit.lost for unit in units)
    assert [index for index, unit in enumerate(units) if unit.keyframe] == [0, 10]
    assert decoded(unit.data for unit in units) == FRAMES


def test_mode_1_payloads_fit_and_fragments_are_even() -> None:
    packets = as_packets(footage())
    assert all(len(packet.payload) <= LIMIT for packet in packets)
    keyframe = [len(packet.payload) for packet in packets if packet.timestamp == 0][1:]
    assert len(keyframe) > 3
    assert set(keyframe[:-1]) == {keyframe[0]}
    assert keyframe[0] - keyframe[-1] < len(keyframe)


def test_parameter_sets_travel_in_one_stap_a_before_the_idr() -> None:
    first, second = (packet.payload for packet in as_packets(footage())[:2])
    sets = [nal for nal in split_annex_b(footage()[0]) if nal[0] & 31 in {SPS, PPS}]
    assert nal_types(first)[:2] == (SPS, PPS)
    assert list(parameter_sets(first)) == sets
    assert nal_types(second) == (IDR,)
    assert is_keyframe(first)
    assert is_keyframe(second)


def test_keyframes_are_seen_only_where_decoding_may_begin() -> None:
    starts = {packet.timestamp for packet in as_packets(footage()) if is_keyframe(packet.payload)}
    assert starts == {0, 10 * 6000}


class Datagrams:
    """What FFmpeg's RTP muxer writes: one packet a write."""

    def __init__(self) -> None:
        self.packets: list[RtpPacket] = []

    def write(self, data: bytes) -> int:
        self.packets.append(RtpPacket.parse(data))
        return len(data)


def test_ffmpegs_packets_yield_the_encoders_units() -> None:
    sink = Datagrams()
    options = {"packetsize": "1200", "rtpflags": "skip_rtcp"}
    with av.open(sink, "w", format="rtp", options=options) as muxer:
        stream = muxer.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
        stream.options = {"profile": "baseline", "tune": "zerolatency", "g": "10"}
        expected = []
        with av.open(f"testsrc2=size=352x288:rate=15,trim=end_frame={FRAMES}", format="lavfi") as source:
            frames = [undecided(frame) for frame in source.decode(video=0)]
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                expected.append(split_annex_b(bytes(packet)))
                muxer.mux(packet)
    units = received(sink.packets)
    assert {packet.payload[0] & 31 for packet in sink.packets} >= {24, 28}
    assert [split_annex_b(unit.data) for unit in units] == expected
    assert all(unit.complete for unit in units)
    assert decoded(unit.data for unit in units) == FRAMES


@given(st.integers(0, 10_000))
def test_one_lost_packet_spoils_only_its_own_picture(pick: int) -> None:
    packets = as_packets(footage())
    slices = [packet for packet in packets[:-1] if not parameter_sets(packet.payload)]
    lost = slices[pick % len(slices)]
    packets.remove(lost)
    units = {unit.timestamp: unit for unit in received(packets)}
    broken = {timestamp for timestamp, unit in units.items() if not unit.complete}
    assert broken <= {lost.timestamp}
    assert broken or lost.timestamp not in units
    assert sum(unit.lost for unit in units.values()) == 1
    originals = {index * 6000: split_annex_b(unit) for index, unit in enumerate(footage())}
    for timestamp, unit in units.items():
        assert all(nal in originals[timestamp] for nal in split_annex_b(unit.data)), "a torn unit came through"


def test_a_picture_joined_in_its_middle_is_not_called_complete() -> None:
    units = received(as_packets(footage())[3:])
    assert [unit.complete for unit in units] == [False] + [True] * (FRAMES - 1)


def test_late_and_repeated_packets_change_nothing() -> None:
    packets = as_packets(footage())
    repeated = [copy for packet in packets for copy in (packet, packet)]
    assert received(repeated) == received(packets)


def test_a_restarted_source_is_followed() -> None:
    once = as_packets(footage(), first_sequence=40_000)
    again = as_packets(footage(), first_sequence=20_000)
    units = received(once + again)
    assert len(units) == 2 * FRAMES
    assert all(unit.complete for unit in units)


def test_pictures_end_without_markers_too() -> None:
    packets = [RtpPacket(97, p.sequence, p.timestamp, 1, p.payload) for p in as_packets(footage())]
    assert received(packets) == received(as_packets(footage()))[:-1]


@given(st.binary(min_size=3, max_size=5000), st.integers(3, 300))
def test_fragments_are_as_few_as_fit(body: bytes, limit: int) -> None:
    nal = b"\x65" + body
    parts = fragment(nal, limit)
    assert b"\x65" + b"".join(part[2:] for part in parts) == nal
    assert len(parts) <= max(2, ceil(len(body) / (limit - 2)))
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    assert [part[1] & 0xC0 for part in parts] == [0x80] + [0] * (len(parts) - 2) + [0x40]


nals = st.tuples(st.integers(1, 23), st.binary(min_size=1, max_size=400)).map(
    lambda pair: bytes((0x60 | pair[0],)) + pair[1] + b"\x80"
)


@given(st.lists(nals, min_size=1, max_size=6), st.integers(20, 500))
def test_any_units_survive_packets_of_any_size(units: list[bytes], limit: int) -> None:
    depacketizer = Depacketizer()
    payloads = packetize(units, limit)
    finished = [
        unit
        for index, payload in enumerate(payloads)
        for unit in depacketizer.push(index, 0, index == len(payloads) - 1, payload)
    ]
    assert [unit.data for unit in finished] == [join_annex_b(units)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.booleans(), st.binary(max_size=20))))
def test_garbage_neither_raises_nor_grows(pushes: list[tuple[int, int, bool, bytes]]) -> None:
    depacketizer = Depacketizer(max_bytes=64)
    for sequence, timestamp, marker, payload in pushes:
        for unit in depacketizer.push(sequence, timestamp, marker, payload):
            assert len(unit.data) <= 4 * 64
        nal_types(payload)
        is_keyframe(payload)
        parameter_sets(memoryview(payload))


def test_an_endless_picture_is_cut_off() -> None:
    depacketizer = Depacketizer(max_bytes=10_000)
    for sequence in range(100):
        depacketizer.push(sequence, 0, False, b"\x61" + bytes(999))
    (unit,) = depacketizer.push(100, 0, True, b"\x61\x80")
    assert not unit.complete
    assert len(unit.data) <= 10_000


def test_empty_units_are_refused() -> None:
    with pytest.raises(H264Error):
        packetize([b"\x67", b""])
    with pytest.raises(H264Error):
        packetize([bytes(70_000)], mode=0)
