"""Reception buffers on a clock that the test holds: video reordering and requests, audio playout."""

import itertools
import time
from random import Random

import numpy as np
import pytest

from protocols.rtp.packet import RtpPacket
from terminal_client.audio_codec import open_codec
from terminal_client.audio_playout import PlayoutBuffer, SoundPlayer
from terminal_client.microphone import Samples
from terminal_client.video_buffer import LATE_LIMIT, NACK_AFTER, REPLAY_PATIENCE, CodedPicture, Feedback, VideoBuffer

IDR, SLICE, SPS = b"\x65\x88", b"\x41\x9a", b"\x67\x42\x00\x1f"
STEP = 6000


def picture(number: int, *, keyframe: bool = False, sequence: int | None = None) -> RtpPacket:
    """A whole picture in one packet, whose sequence number is the picture's number unless given."""
    payload = (IDR if keyframe else SLICE) + number.to_bytes(4, "big")
    return RtpPacket(97, (number if sequence is None else sequence) & 0xFFFF, number * STEP, 1, payload, True)


def numbers(pictures: list[CodedPicture]) -> list[int]:
    return [one.timestamp // STEP for one in pictures]


def started() -> VideoBuffer:
    buffer = VideoBuffer()
    assert numbers(buffer.put(picture(0, keyframe=True), 0.0)) == [0]
    return buffer


def test_pictures_in_order_are_handed_out_at_once() -> None:
    buffer = started()
    assert [numbers(buffer.put(picture(n), n / 15)) for n in range(1, 5)] == [[1], [2], [3], [4]]
    assert buffer.feedback(1.0) == Feedback()
    assert buffer.next_timer() is None


def test_swapped_packets_are_put_back_in_order_without_a_request() -> None:
    buffer = started()
    assert buffer.put(picture(2), 0.010) == []
    assert numbers(buffer.put(picture(1), 0.012)) == [1, 2]
    assert buffer.feedback(1.0) == Feedback()


def test_any_order_within_the_limit_comes_out_right() -> None:
    random = Random(7)
    buffer, shown = started(), []
    order = list(range(1, 200))
    for at in range(0, 196, 4):
        order[at : at + 4] = random.sample(order[at : at + 4], 4)
    for position, number in enumerate(order):
        shown += numbers(buffer.put(picture(number), position * 0.001))
        shown += numbers(buffer.put(picture(number), position * 0.001))
    assert shown == list(range(1, 200))


def test_a_missing_packet_is_asked_for_and_joins_when_it_comes() -> None:
    buffer = started()
    buffer.put(picture(2), 0.1)
    assert buffer.feedback(0.1) == Feedback(), "perhaps it is only reordered"
    assert buffer.feedback(0.1 + NACK_AFTER) == Feedback(nack=(1,))
    assert buffer.feedback(0.1 + NACK_AFTER) == Feedback(), "not twice in a moment"
    assert numbers(buffer.put(picture(1), 0.14)) == [1, 2]


def test_what_stays_away_costs_the_pictures_up_to_the_next_keyframe_which_is_asked_for_at_once() -> None:
    buffer = started()
    buffer.put(picture(2), 0.1)
    assert buffer.next_timer() == pytest.approx(0.1 + NACK_AFTER)
    assert buffer.poll(0.1 + LATE_LIMIT - 0.001) == []
    assert buffer.poll(0.1 + LATE_LIMIT) == []
    assert buffer.feedback(0.1 + LATE_LIMIT).pli
    assert buffer.put(picture(3), 0.3) == []
    assert not buffer.feedback(0.3).pli, "once is enough for a second"
    assert numbers(buffer.put(picture(4, keyframe=True), 0.4)) == [4]
    assert numbers(buffer.put(picture(5), 0.5)) == [5]
    assert buffer.counts.frames_lost == 3
    assert not buffer.feedback(5.0).pli


def test_a_peer_deaf_to_pli_is_asked_by_fir_as_well() -> None:
    buffer = VideoBuffer()
    buffer.put(picture(1), 0.0)
    assert buffer.feedback(0.0) == Feedback(), "a relay's replay may be on its way"
    asked = [buffer.feedback(REPLAY_PATIENCE + second) for second in range(5)]
    assert [wish.pli for wish in asked] == [True] * 5
    assert [wish.fir for wish in asked] == [False, False, False, True, True]


def test_sequence_numbers_and_timestamps_wrap_unnoticed() -> None:
    buffer, shown = VideoBuffer(), []
    for number in range(100):
        packet = RtpPacket(
            97, (65_500 + number) & 0xFFFF, (2**32 - 50 * STEP + number * STEP) & 0xFFFFFFFF, 1, IDR + b"x", True
        )
        shown += buffer.put(packet, number / 15)
    assert len(shown) == 100
    assert all(b.timestamp - a.timestamp == STEP for a, b in itertools.pairwise(shown))


def test_a_source_that_starts_over_is_followed() -> None:
    buffer = started()
    assert buffer.put(picture(1, sequence=30_000), 0.1) == []
    assert numbers(buffer.put(picture(2, keyframe=True, sequence=30_001), 0.2)) == [2]


def test_memory_stays_bounded_whatever_comes() -> None:
    buffer, random = started(), Random(3)
    for _ in range(5000):
        buffer.put(picture(random.randrange(4000), sequence=random.randrange(65_536)), 0.0)
    assert len(buffer._stored) <= 1024
    assert len(buffer._gaps) <= 4000


BLOCK = 160


def playout(delay: float = 0.06) -> PlayoutBuffer:
    return PlayoutBuffer(BLOCK, delay, 0.4)


def run(buffer: PlayoutBuffer, arrivals: list[tuple[float, int]], until: float) -> list[int | None]:
    """Play arrivals (time, block number) on a 20 ms clock; which blocks were played, None for concealment."""
    played: list[int | None] = []
    pending = sorted(arrivals)
    for tick in range(int(until / 0.02)):
        now = tick * 0.02
        while pending and pending[0][0] <= now:
            at, number = pending.pop(0)
            buffer.put(number * BLOCK, [str(number).encode()], at)
        block = buffer.take(now)
        if block is not None:
            played += [None if frame is None else int(frame) for frame in block]
    return played


def test_jitter_below_the_delay_is_not_heard() -> None:
    random = Random(1)
    arrivals = [(number * 0.02 + random.uniform(0, 0.04), number) for number in range(500)]
    played = run(playout(), arrivals, 10)
    assert [number for number in played if number is not None] == sorted(set(range(played[0] or 0, 500)))[: len(played)]
    assert played.count(None) <= 2


def test_a_lost_packet_is_one_gap_of_twenty_milliseconds() -> None:
    buffer = playout()
    played = run(buffer, [(n * 0.02, n) for n in range(100) if n != 50], 2)
    assert played[50] is None
    assert (buffer.counts.concealed_ms, buffer.counts.gaps) == (20, 1)


@pytest.mark.parametrize("drift", [0.997, 1.003])
def test_a_sender_whose_clock_is_off_is_followed_without_gaps(drift: float) -> None:
    buffer = playout()
    played = run(buffer, [(number * 0.02 * drift, number) for number in range(3000)], 3000 * 0.02 * drift)
    heard = [number for number in played if number is not None]
    assert heard == sorted(heard)
    assert len(heard) > 2950
    assert buffer.counts.concealed_ms == 0
    assert (buffer.counts.skipped_blocks if drift < 1 else buffer.counts.held_blocks) >= 5
    assert buffer.delay_ms < 200, "the delay does not pile up"


def test_a_delay_spike_makes_the_buffer_grow_and_then_shrink_again() -> None:
    arrivals = [(max(n * 0.02, 3.0) if 120 <= n < 150 else n * 0.02, n) for n in range(1000)]
    buffer = playout()
    played = run(buffer, arrivals, 20)
    assert [n for n in played if n is not None][-1] >= 990
    assert buffer.delay_ms <= 120


def test_the_end_of_a_stream_is_no_gap_and_a_pause_starts_playout_anew() -> None:
    buffer = playout()
    played = run(buffer, [(n * 0.02, n) for n in range(50)] + [(3 + n * 0.02, 400 + n) for n in range(50)], 6)
    assert [n for n in played if n is not None] == [*range(50), *range(400, 450)]
    assert (buffer.counts.gaps, buffer.counts.concealed_ms) == (0, 0)


def test_a_stream_that_jumps_in_time_is_picked_up() -> None:
    buffer = playout()
    played = run(buffer, [(n * 0.02, n if n < 50 else n + 100_000) for n in range(100)], 2)
    assert [n for n in played if n is not None and n >= 100_000]


def test_g711_in_packets_of_thirty_milliseconds_is_played_whole() -> None:
    codec = open_codec("PCMU")
    buffer = PlayoutBuffer(codec.frame_samples, 0.06, 0.4)
    for number in range(10):
        buffer.put(number * 240, codec.frames(bytes([number]) * 240), number * 0.03)
    heard: list[bytes | None] = []
    for tick in range(15):
        heard += buffer.take(0.3 + tick * 0.02) or []
    assert heard == [bytes([number]) * 80 for number in range(10) for _ in range(3)]


@pytest.mark.parametrize(
    ("name", "fmtp", "size"), [("AMR", "octet-align=1", 33), ("AMR", "", 32), ("PCMU", "", 160), ("PCMA", "", 160)]
)
def test_codecs_bring_a_tone_through(name: str, fmtp: str, size: int) -> None:
    near, far = open_codec(name, fmtp), open_codec(name, fmtp)
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.int16)
    heard: list[Samples] = []
    for block in tone.reshape(-1, BLOCK):
        payload = near.encode(block)
        assert len(payload) == size
        heard += [samples for frame in far.frames(payload) if (samples := far.decode(frame)) is not None]
    spectrum = np.abs(np.fft.rfft(np.concatenate(heard)[2000:]))
    assert abs(np.argmax(spectrum) * 8000 / len(spectrum) / 2 - 440) < 5
    assert np.abs(np.concatenate(heard)[2000:].astype(int)).max() == pytest.approx(8000, rel=0.25)


def test_an_allowed_mode_set_is_kept() -> None:
    assert len(open_codec("AMR", "octet-align=1;mode-set=0,2").encode(np.zeros(BLOCK, np.int16))) == 17


def test_rubbish_and_pauses_make_no_noise() -> None:
    codec = open_codec("AMR", "octet-align=1")
    assert codec.frames(b"\xf0") == []
    (no_data,) = codec.frames(b"\xf0\x7c")
    samples = codec.decode(no_data)
    assert samples is not None and not samples.any()
    with pytest.raises(ValueError, match="G729"):
        open_codec("G729")


def test_the_player_plays_what_it_was_given() -> None:
    class Sink:
        blocks: list[Samples] = []  # noqa: RUF012
        closed = False

        def write(self, samples: Samples) -> None:
            self.blocks.append(samples)

        def close(self) -> None:
            self.closed = True

    sink, codec = Sink(), open_codec("PCMU")
    player = SoundPlayer(codec, sink, lambda samples, at: None, 0.02, 0.4)
    player.start()
    for number in range(5):
        player.put(number * BLOCK, codec.encode(np.full(BLOCK, 1000, np.int16)), time.monotonic())
    time.sleep(0.25)
    player.close()
    assert sink.closed
    assert sum(int(abs(int(block.mean()) - 1000) < 50) for block in sink.blocks) == 5
    assert abs(int(sink.blocks[-1].mean())) < 1000, "what is missing fades out"
