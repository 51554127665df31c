"""The judge passes a good stream and fails every kind of bad one: each test spoils one thing of a good recording."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dialcast.footage import Footage
from dialcast.judge import Verdict, judge
from terminal_client.audio_codec import open_codec
from terminal_client.capture import clip_pictures
from terminal_client.microphone import BLOCK_SECONDS, Samples, file_blocks
from terminal_client.recorder import Recorder
from terminal_client.report import AudioReport, CallReport, MediaReport, ReceivedFrame, SentFrame
from terminal_client.stamp import Plane, stamp
from terminal_client.video_encoder import VideoEncoder

WIDTH, HEIGHT, FPS, SECONDS = 352, 288, 15, 3
LATENCY = 0.05
STEP = 90_000 // FPS


@dataclass
class Show:
    """A broadcast without a network; every field can be spoilt before it is recorded and judged."""

    pictures: list[tuple[int, Plane]]
    """Counter and stamped picture, as the viewer decoded them."""
    sound: list[Samples]
    clip: Path
    voice: Path
    latency: float = LATENCY
    audio: AudioReport | None = None
    bitrate: int = 600_000
    dialled_at: float = -0.2
    on_air: int = 0
    """Seconds the broadcast has been live when the first of these pictures is captured, at 0."""
    catching_up: tuple[float, ...] = ()
    """Seconds by which the first pictures are shown later than `latency` says."""

    def verdict(self, folder: Path) -> Verdict:
        path = folder / "recording.mp4"
        problems: list[object] = []
        recorder = Recorder(path, problems.append)
        encoder = VideoEncoder(WIDTH, HEIGHT, FPS, self.bitrate)
        received = []
        for position, (_, planes) in enumerate(self.pictures):
            pts, at = position * STEP, position / FPS + self.latency
            at += dict(enumerate(self.catching_up)).get(position, 0.0)
            unit = encoder.encode(planes, pts)
            assert unit is not None
            recorder.picture(unit.data, pts, keyframe=unit.keyframe, size=(WIDTH, HEIGHT), at=at)
            received.append(ReceivedFrame(pts, at))
        for position, samples in enumerate(self.sound):
            recorder.sound(samples, self.latency + position * BLOCK_SECONDS)
        recorder.close()
        assert not problems
        sent = tuple(
            SentFrame(number, number / FPS, number * STEP, str(self.clip), number)
            for number in range(-self.on_air * FPS, SECONDS * FPS)
        )
        broadcaster = CallReport("broadcast", "1001", media=MediaReport(sent=sent))
        media = MediaReport(
            received=tuple(received),
            first_picture_at=received[0].shown_at if received else None,
            ended_at=SECONDS + 0.2,
            audio=self.audio or AudioReport(played_ms=20 * len(self.sound)),
        )
        viewer = CallReport("watch", "1002", dialled_at=self.dialled_at, media=media)
        return judge(broadcaster, viewer, path, clip=self.clip, voice=self.voice, fps=FPS)


def stamped(clip: Path) -> Iterator[tuple[int, Plane]]:
    for counter, planes in zip(range(SECONDS * FPS), clip_pictures(clip, WIDTH, HEIGHT, FPS), strict=False):
        stamp(planes, counter)
        yield counter, planes


def spoken(voice: Path) -> list[Samples]:
    encoder, decoder = open_codec("AMR"), open_codec("AMR")
    heard = []
    for _, block in zip(range(int(SECONDS / BLOCK_SECONDS)), file_blocks(voice), strict=False):
        for frame in decoder.frames(encoder.encode(block)):
            samples = decoder.decode(frame)
            assert samples is not None
            heard.append(samples)
    return heard


@pytest.fixture(scope="module")
def good_show(real_footage: Footage) -> Show:
    """All as it should be."""
    clip, voice = real_footage.clips["bikes"], real_footage.voices[0]
    return Show(list(stamped(clip)), spoken(voice), clip, voice)


@pytest.fixture
def show(good_show: Show) -> Show:
    """A copy to be spoilt."""
    return deepcopy(good_show)


def test_a_good_stream_passes(show: Show, tmp_path: Path) -> None:
    verdict = show.verdict(tmp_path)
    assert verdict.ok, verdict
    assert verdict.frames_decoded == SECONDS * FPS
    assert verdict.frames_lost == 0
    assert verdict.ssim is not None and verdict.ssim > 0.95
    assert verdict.latency_ms_p50 == pytest.approx(1000 * LATENCY, abs=2)
    assert verdict.dial_to_picture_ms == pytest.approx(250, abs=2)


def test_pictures_missing_in_the_middle_are_counted(show: Show, tmp_path: Path) -> None:
    show.pictures = show.pictures[:1] + show.pictures[5:]
    verdict = show.verdict(tmp_path)
    assert verdict.frames_lost == 4


def swapped_picture(show: Show, other: Footage) -> None:
    show.pictures = list(stamped(other.clips["bigbuckbunny"]))


def shifted_picture(show: Show, other: Footage) -> None:
    for (_, late), (_, planes) in zip(show.pictures[20:], show.pictures, strict=False):
        planes[24:HEIGHT] = late[24:HEIGHT]


def unstamped_picture(show: Show, other: Footage) -> None:
    for _, planes in show.pictures:
        planes[:24] = 90


def frozen_picture(show: Show, other: Footage) -> None:
    show.pictures[20:] = [show.pictures[20]] * (len(show.pictures) - 20)


def stopped_picture(show: Show, other: Footage) -> None:
    del show.pictures[20:]


def no_picture(show: Show, other: Footage) -> None:
    show.pictures.clear()


def lost_pictures(show: Show, other: Footage) -> None:
    del show.pictures[10:20]


def blurred_picture(show: Show, other: Footage) -> None:
    show.bitrate = 40_000


def late_picture(show: Show, other: Footage) -> None:
    show.latency = 0.4


def silence(show: Show, other: Footage) -> None:
    show.sound = [np.zeros_like(samples) for samples in show.sound]


def no_sound(show: Show, other: Footage) -> None:
    show.sound = []


def swapped_voice(show: Show, other: Footage) -> None:
    show.sound = spoken(other.voices[1])


def torn_sound(show: Show, other: Footage) -> None:
    loudest = int(np.argmax([np.abs(samples.astype(int)).sum() for samples in show.sound]))
    torn = slice(loudest - 5, loudest + 5)
    show.sound[torn] = [np.zeros_like(samples) for samples in show.sound[torn]]


def concealed_sound(show: Show, other: Footage) -> None:
    show.audio = AudioReport(played_ms=2900, concealed_ms=100)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (swapped_picture, "PSNR"),
        (shifted_picture, "PSNR"),
        (unstamped_picture, "counter read"),
        (frozen_picture, "shown again"),
        (stopped_picture, "frozen"),
        (no_picture, "no picture"),
        (lost_pictures, "pictures lost"),
        (blurred_picture, "PSNR"),
        (late_picture, "never live"),
        (silence, "sound: correlation"),
        (no_sound, "sound"),
        (swapped_voice, "sound: correlation"),
        (torn_sound, "missing"),
        (concealed_sound, "missing"),
    ],
)
def test_a_spoilt_stream_fails(
    show: Show, real_footage: Footage, tmp_path: Path, spoil: Callable[[Show, Footage], None], complaint: str
) -> None:
    spoil(show, real_footage)
    verdict = show.verdict(tmp_path)
    assert not verdict.ok
    assert any(complaint in failure for failure in verdict.failures), verdict.failures


CATCHING_UP = (0.2, 0.155, 0.1)
"""The first two pictures are over 200 ms old when shown; the third is live."""
CAUGHT_UP = 2 / FPS + LATENCY + CATCHING_UP[2]


@pytest.mark.parametrize(
    ("catching_up", "live_at"), [((), LATENCY), (CATCHING_UP, CAUGHT_UP)], ids=["at once", "out of the cache first"]
)
def test_who_calls_a_live_broadcast_sees_it_live_within_a_second(
    show: Show, tmp_path: Path, catching_up: tuple[float, ...], live_at: float
) -> None:
    show.on_air, show.catching_up = 3, catching_up
    show.dialled_at = live_at - 1.0
    in_time = show.verdict(tmp_path)
    assert in_time.ok, in_time
    assert in_time.dial_to_live_ms == pytest.approx(1000)
    show.dialled_at = live_at - 1.001
    slow = show.verdict(tmp_path)
    assert [failure.partition(":")[0] for failure in slow.failures] == ["slow"], slow.failures
    assert "1001 ms after dialling, more than 1000" in slow.failures[0]
    assert slow.dial_to_picture_ms is not None
    assert (slow.dial_to_picture_ms < 1000) == bool(catching_up), "the limit is on the live picture, not on the first"


def test_who_called_before_the_first_picture_waited_for_the_broadcaster(show: Show, tmp_path: Path) -> None:
    show.on_air, show.dialled_at = 3, -3.0
    verdict = show.verdict(tmp_path)
    assert verdict.ok, verdict
    assert verdict.dial_to_live_ms == pytest.approx(3050)


def test_bad_sound_alone_is_told_apart_from_a_bad_picture(show: Show, tmp_path: Path) -> None:
    show.sound = [np.zeros_like(samples) for samples in show.sound]
    verdict = show.verdict(tmp_path)
    assert not verdict.audio_ok
    assert all(failure.startswith("sound") for failure in verdict.failures)


def test_a_missing_recording_fails_without_a_traceback(show: Show, tmp_path: Path) -> None:
    report = CallReport("watch", "1002")
    verdict = judge(replace(report, role="broadcast"), report, tmp_path / "none.mp4", clip=show.clip, voice=show.voice)
    assert not verdict.ok
    assert not verdict.audio_ok
