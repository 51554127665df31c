"""A server or peer that wants the phone's memory, its uplink, its processor or its user's terminal."""

import io
import os
import sys
import time
from contextlib import redirect_stdout
from fractions import Fraction
from random import Random

import av
import pytest
from test_media_buffers import picture
from test_media_rtp_session import pair

from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import Nack, compound
from terminal_client import receiving
from terminal_client.journal import Journal
from terminal_client.receiving import MAX_QUEUED, PictureReceiver
from terminal_client.rtp_session import HISTORY, RESEND_BURST
from terminal_client.screen import TerminalScreen
from terminal_client.video_buffer import MAX_JUMP, CodedPicture, VideoBuffer
from terminal_client.video_decoder import VideoDecoder

EVIL = "Busy\x1b]0;owned\x07\x1b[2J\nphone.connected to=bank"


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """One keyframe of 8192 x 8192 black: 200 kB that decode to 100 MB."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = 8192
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "threads=1"}
    frame = av.VideoFrame(8192, 8192, "yuv420p")
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


def test_a_picture_of_monstrous_size_is_not_decoded(bomb: bytes) -> None:
    assert VideoDecoder().decode(bomb) is None


def test_pictures_faster_than_they_can_be_decoded_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def decode(self, data: bytes) -> None:
            time.sleep(0.0005)

    monkeypatch.setattr(receiving, "VideoDecoder", Slow)
    wanted: list[None] = []
    receiver = PictureReceiver(lambda event: None, lambda: wanted.append(None))
    for number in range(5000):
        receiver.put(CodedPicture(b"x", number * 6000, False, 0.0))
        assert receiver._queue.qsize() <= MAX_QUEUED
    receiver.close()
    assert len(wanted) == 5000, "each picture lost or undecodable asks for a keyframe"


async def test_a_forged_request_for_everything_does_not_fill_the_uplink() -> None:
    async with pair() as (near, far):
        near.session.send_frame([bytes(100)] * HISTORY, 0)
        first = far.session._remote
        assert first is not None
        sequences = tuple(near.session._history)
        for _ in range(20):
            near.session._received_rtcp(compound([Nack(1, near.session.ssrc, sequences[:1000])]), time.monotonic())
        assert near.session.report().retransmitted <= RESEND_BURST + 20


def test_a_stream_of_leaps_does_not_fill_the_memory_with_gaps() -> None:
    buffer = VideoBuffer()
    sequence = 0
    started = time.process_time()
    for number in range(200):
        buffer.put(picture(number, sequence=sequence), number / 10_000)
        sequence += MAX_JUMP - 1
        buffer.feedback(number / 10_000)
        buffer.next_timer()
        assert len(buffer._gaps) <= MAX_JUMP
    assert time.process_time() - started < 2


def test_garbage_never_stops_the_buffer() -> None:
    random, buffer = Random(5), VideoBuffer()
    for number in range(3000):
        payload = random.randbytes(random.randrange(40))
        packet = RtpPacket(97, random.randrange(65536), random.randrange(1 << 32), 1, payload, random.random() < 0.5)
        buffer.put(packet, number / 1000)
        buffer.feedback(number / 1000)


def test_what_the_far_end_says_cannot_write_on_the_users_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    with open(os.devnull) as nobody, redirect_stdout(shown):
        monkeypatch.setattr(sys, "stdin", nobody)
        TerminalScreen("phone").say(f"the call failed: {EVIL}")
    assert "\x1b" not in shown.getvalue() and shown.getvalue().count("\n") == 1
    lines: list[str] = []
    Journal(level="info", write=lines.append).event("phone.ended", reason=EVIL)
    assert len(lines) == 1 and lines[0].isprintable()
