"""AMR payloads: both packings against real encoder output, and garbage."""

from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.rtp.amr import (
    FRAME_BITS,
    MAX_FRAMES,
    NO_DATA,
    AmrError,
    AmrFrame,
    AmrPayload,
    build,
    convert,
    parse,
)

RATE, SAMPLES = 8000, 160


@cache
def encoded(bit_rate: int = 12200) -> tuple[bytes, ...]:
    """One second of a tone as libopencore_amrnb packets, one 20 ms frame each."""
    encoder = av.CodecContext.create("libopencore_amrnb", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "s16", bit_rate
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)
    packets = []
    for start in range(0, RATE, SAMPLES):
        frame = av.AudioFrame.from_ndarray(tone[None, start : start + SAMPLES], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(packets)


def decoded_samples(frames: list[bytes]) -> np.ndarray:
    decoder = av.CodecContext.create("amrnb", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    sound = [block.to_ndarray().ravel() for frame in frames for block in decoder.decode(av.Packet(frame))]
    return np.concatenate(sound)


def test_one_octet_aligned_frame_is_a_request_octet_and_the_encoders_packet() -> None:
    for packet in encoded():
        assert build([AmrFrame.from_storage(packet)], octet_align=True) == b"\xf0" + packet


@pytest.mark.parametrize("bit_rate", [4750, 5150, 5900, 6700, 7400, 7950, 10200, 12200])
@pytest.mark.parametrize("octet_align", [True, False])
@pytest.mark.parametrize("per_packet", [1, 3])
def test_real_speech_passes_through_every_packing(bit_rate: int, octet_align: bool, per_packet: int) -> None:
    packets = encoded(bit_rate)
    arrived: list[bytes] = []
    for start in range(0, len(packets), per_packet):
        frames = [AmrFrame.from_storage(packet) for packet in packets[start : start + per_packet]]
        payload = build(frames, octet_align=octet_align)
        arrived += [frame.storage for frame in parse(payload, octet_align=octet_align).frames]
    assert arrived == list(packets)


def test_converted_speech_sounds_the_same() -> None:
    aligned = [b"\xf0" + packet for packet in encoded()]
    efficient = [convert(payload, True, False) for payload in aligned]
    assert {len(payload) for payload in efficient} == {32}, "12.2 kbit/s bandwidth-efficient is 32 octets"
    frames = [parse(payload, octet_align=False).frames[0].storage for payload in efficient]
    assert np.array_equal(decoded_samples(frames), decoded_samples(list(encoded())))
    assert [convert(payload, False, True) for payload in efficient] == aligned


def test_ffmpegs_rtp_muxer_packs_octet_aligned_as_we_read_it() -> None:
    class Datagrams:
        def __init__(self) -> None:
            self.payloads: list[bytes] = []

        def write(self, data: bytes) -> int:
            self.payloads.append(data[12:])
            return len(data)

    sink = Datagrams()
    with av.open(sink, "w", format="rtp", options={"rtpflags": "skip_rtcp"}) as muxer:
        stream = muxer.add_stream("libopencore_amrnb", rate=RATE, layout="mono")
        with av.open("sine=440:r=8000:samples_per_frame=160,atrim=end_sample=3200", format="lavfi") as source:
            for frame in source.decode(audio=0):
                muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    frames = [frame for payload in sink.payloads for frame in parse(payload, octet_align=True).frames]
    assert len(frames) == 20
    assert {frame.type for frame in frames} <= set(range(9))


def test_a_frame_as_rfc_4867_draws_it() -> None:
    """Section 4.3.5.1: no request, one AMR 7.4 kbit/s (type 4) frame of 148 bits, two padding bits."""
    payload = build([AmrFrame(4, b"\xff" * 18 + b"\xf0")], octet_align=False)
    assert len(payload) == 20
    assert payload[:2] == bytes((0b11110010, 0b01111111))
    assert payload[-1] == 0b11111100


@st.composite
def frames(draw: st.DrawFn, wideband: bool) -> AmrFrame:
    kind = draw(st.sampled_from([kind for kind, bits in enumerate(FRAME_BITS[wideband]) if bits is not None]))
    size = FRAME_BITS[wideband][kind] or 0
    speech = draw(st.integers(0, (1 << size) - 1))
    data = (speech << (-size % 8)).to_bytes((size + 7) // 8, "big")
    return AmrFrame(kind, data, draw(st.booleans()))


@given(st.data(), st.booleans(), st.booleans(), st.integers(0, 15))
def test_any_frames_survive_the_wire(data: st.DataObject, wideband: bool, octet_align: bool, request: int) -> None:
    sent = data.draw(st.lists(frames(wideband), min_size=1, max_size=5))
    payload = build(sent, octet_align=octet_align, wideband=wideband, mode_request=request)
    assert parse(payload, octet_align=octet_align, wideband=wideband) == AmrPayload(tuple(sent), request)
    there = convert(payload, octet_align, not octet_align, wideband=wideband)
    assert convert(there, not octet_align, octet_align, wideband=wideband) == payload
    assert AmrFrame.from_storage(sent[0].storage, wideband=wideband) == sent[0]


@given(st.binary(max_size=100), st.booleans(), st.booleans())
def test_garbage_raises_amr_error_or_is_speech(payload: bytes, wideband: bool, octet_align: bool) -> None:
    try:
        parsed = parse(payload, octet_align=octet_align, wideband=wideband)
    except AmrError:
        return
    assert 0 < len(parsed.frames) <= MAX_FRAMES


@pytest.mark.parametrize("octet_align", [True, False])
def test_truncated_speech_is_refused(octet_align: bool) -> None:
    payload = build([AmrFrame.from_storage(encoded()[0])], octet_align=octet_align)
    with pytest.raises(AmrError):
        parse(payload[:-1], octet_align=octet_align)


def test_frames_without_data_are_carried() -> None:
    silence = AmrFrame(NO_DATA)
    assert build([silence], octet_align=True) == b"\xf0\x7c"
    assert parse(b"\xf0\x7c", octet_align=True).frames == (silence,)


def test_what_cannot_be_sent_is_refused() -> None:
    for bad in ([], [AmrFrame(NO_DATA)] * 51, [AmrFrame(7, b"short")], [AmrFrame(12)]):
        with pytest.raises(AmrError):
            build(bad, octet_align=True)
    for stored in (b"", b"\x3c\x00", b"\x64"):
        with pytest.raises(AmrError):
            AmrFrame.from_storage(stored)
