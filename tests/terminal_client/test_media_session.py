"""Two media sessions and a tiny relay between them: what one shows and says, the other sees and hears."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
from tiny_relay import Rule, TinyRelay

from dialcast.footage import Footage
from dialcast.judge import Verdict, judge
from terminal_client.media import MediaSession
from terminal_client.report import CallReport, MediaReport
from terminal_client.streams import (
    ConsentLost,
    FirstPicture,
    JoinError,
    KeyframeRequested,
    Live,
    MediaOptions,
    StreamSilent,
)

HOST = "127.0.0.1"


@dataclass
class Broadcast:
    """What is left of a broadcast with one viewer."""

    sent: MediaReport
    received: MediaReport
    recording: Path
    clip: Path
    voice: Path

    def verdict(self) -> Verdict:
        broadcaster = CallReport("broadcast", "1001", media=self.sent)
        viewer = CallReport("watch", "1002", media=self.received)
        return judge(broadcaster, viewer, self.recording, clip=self.clip, voice=self.voice)


def source(real_footage: Footage, clip: str = "bikes") -> MediaOptions:
    return MediaOptions(cameras=(str(real_footage.clips[clip]),), microphone=str(real_footage.voices[0]), stamp=True)


async def broadcast(
    options: MediaOptions,
    folder: Path,
    *,
    seconds: float,
    viewer_after: float = 0.0,
    rule: Rule | None = None,
    codec: str = "AMR",
    meanwhile: Callable[[MediaSession, MediaSession, TinyRelay], Awaitable[None]] | None = None,
) -> Broadcast:
    recording = folder / "recording.mp4"
    async with TinyRelay(rule) as relay:
        sender = MediaSession(HOST, options, "broadcast")
        viewer = MediaSession(HOST, MediaOptions(record=recording), "watch")
        sender.negotiated(relay.admit("broadcast", await sender.open(), codec=codec))
        await sender.join()
        if viewer_after:
            await sender.start_sending()
            await asyncio.sleep(viewer_after)
        viewer.negotiated(relay.admit("watch", await viewer.open(), codec=codec))
        viewer.start_receiving()
        await viewer.join()
        await sender.start_sending()
        if meanwhile is not None:
            await meanwhile(sender, viewer, relay)
        await asyncio.sleep(seconds)
        sent = await sender.close()
        await asyncio.sleep(0.2)
        received = await viewer.close()
        assert options.cameras and isinstance(options.microphone, str)
        return Broadcast(sent, received, recording, Path(options.cameras[0]), Path(options.microphone))


def events_of(session: MediaSession) -> list[object]:
    return [session.events.get_nowait() for _ in range(session.events.qsize())]


@pytest.mark.parametrize("codec", ["AMR", "PCMU"])
async def test_a_viewer_sees_and_hears_what_the_broadcaster_shows_and_says(
    real_footage: Footage, tmp_path: Path, codec: str
) -> None:
    done = await broadcast(source(real_footage), tmp_path, seconds=3 if codec == "AMR" else 2, codec=codec)
    verdict = done.verdict()
    assert verdict.ok, verdict
    assert verdict.frames_decoded > (40 if codec == "AMR" else 25)
    assert verdict.frames_lost == 0
    assert verdict.counter_read_ratio == 1.0


async def test_a_viewer_who_comes_late_catches_up_at_once(real_footage: Footage, tmp_path: Path) -> None:
    done = await broadcast(source(real_footage), tmp_path, seconds=1.5, viewer_after=1.6)
    verdict = done.verdict()
    assert verdict.ok, verdict
    joined, first, live = done.received.joined_at, done.received.first_picture_at, done.received.live_at
    assert joined is not None and first is not None and live is not None
    assert first - joined < 0.2
    assert live - joined < 0.35
    assert verdict.latency_ms_p95 is not None and verdict.latency_ms_p95 < 200
    counters = [frame.counter for frame in done.sent.sent]
    assert verdict.frames_decoded >= len(counters) - 5, "the replay of the group of pictures was shown as well"


async def test_reordered_and_repeated_packets_cost_no_picture(real_footage: Footage, tmp_path: Path) -> None:
    rule = Rule(swap=0.1, duplicate=0.1)
    done = await broadcast(source(real_footage), tmp_path, seconds=2, rule=rule)
    assert done.verdict().ok, done.verdict()
    assert done.verdict().frames_lost == 0
    assert done.received.keyframe_requests_sent == 0


async def test_lost_packets_that_are_asked_for_again_cost_no_picture(real_footage: Footage, tmp_path: Path) -> None:
    rule = Rule(drop=0.03, repair=True)
    done = await broadcast(source(real_footage), tmp_path, seconds=2, rule=rule)
    assert done.verdict().ok, done.verdict()
    assert done.received.video_rtp.nacks_sent > 0
    assert done.verdict().frames_lost == 0
    assert done.received.keyframe_requests_sent == 0


async def test_after_loss_a_keyframe_is_asked_for_and_the_picture_comes_back_intact(
    real_footage: Footage, tmp_path: Path
) -> None:
    heard: list[object] = []

    async def lose(sender: MediaSession, viewer: MediaSession, relay: TinyRelay) -> None:
        await asyncio.sleep(0.7)
        relay.rule.drop = 1.0
        await asyncio.sleep(0.1)
        relay.rule.drop = 0.0
        await asyncio.sleep(1)
        heard.extend(events_of(sender))

    done = await broadcast(source(real_footage), tmp_path, seconds=0.5, meanwhile=lose)
    verdict = done.verdict()
    assert done.received.keyframe_requests_sent >= 1
    assert any(isinstance(event, KeyframeRequested) for event in heard)
    assert 1 <= verdict.frames_lost <= 8, "a few pictures go, the stream does not"
    assert verdict.counter_read_ratio == 1.0
    assert verdict.psnr_p5 is not None and verdict.psnr_p5 > 28, "nothing damaged was ever shown"


async def test_a_viewer_says_when_the_picture_is_there_and_when_it_stops(real_footage: Footage, tmp_path: Path) -> None:
    async def vanish(sender: MediaSession, viewer: MediaSession, relay: TinyRelay) -> None:
        await asyncio.sleep(1)
        assert viewer.stats().receive_kbps >= 0
        for leg in relay.legs:
            leg.blocked = True
        await asyncio.sleep(3.1)
        kinds = [type(event) for event in events_of(viewer)]
        assert kinds.index(FirstPicture) < kinds.index(Live) < kinds.index(StreamSilent)

    await broadcast(source(real_footage), tmp_path, seconds=0, meanwhile=vanish)


async def test_pausing_muting_and_switching_keep_counters_and_times_running(
    real_footage: Footage, tmp_path: Path
) -> None:
    options = MediaOptions(
        cameras=(str(real_footage.clips["bikes"]), "synthetic"),
        microphone="synthetic",
        stamp=True,
        record=tmp_path / "own.mp4",
    )

    async def play(sender: MediaSession, viewer: MediaSession, relay: TinyRelay) -> None:
        await asyncio.sleep(0.5)
        sender.switch_camera()
        sender.mute(True)
        await asyncio.sleep(0.5)
        assert sender.stats().camera == "synthetic"
        assert sender.stats().muted
        assert await viewer.snapshot(tmp_path / "seen.png")
        await sender.pause()
        assert not sender.stats().sending
        await asyncio.sleep(0.3)
        await sender.start_sending()

    done = await broadcast(options, tmp_path, seconds=0.6, meanwhile=play)
    sent = done.sent.sent
    assert [frame.counter for frame in sent] == sorted({frame.counter for frame in sent})
    assert all(before.pts < after.pts for before, after in itertools.pairwise(sent))
    assert {Path(frame.source).stem for frame in sent} == {"bikes", "synthetic"}
    assert done.received.frames_decoded >= len(sent) - 3
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    with av.open(str(tmp_path / "own.mp4")) as own:
        assert len(list(own.decode(own.streams.video[0]))) == len(sent)
        assert own.streams.audio


async def test_a_broadcaster_who_dials_again_goes_on_with_the_same_session(real_footage: Footage) -> None:
    viewer_options = MediaOptions()
    async with TinyRelay() as lost, TinyRelay() as found:
        sender = MediaSession(HOST, source(real_footage), "broadcast")
        local = await sender.open()
        sender.negotiated(lost.admit("broadcast", local))
        await sender.join()
        await sender.start_sending()
        await asyncio.sleep(0.4)
        await sender.pause()
        sender.negotiated(found.admit("broadcast", local))
        viewer = MediaSession(HOST, viewer_options, "watch")
        viewer.negotiated(found.admit("watch", await viewer.open()))
        viewer.start_receiving()
        await asyncio.gather(sender.join(), viewer.join())
        await sender.start_sending()
        await asyncio.sleep(0.5)
        sent, received = await sender.close(), await viewer.close()
    counters = [frame.counter for frame in sent.sent]
    assert counters == sorted(set(counters))
    assert received.frames_decoded >= 6


async def test_a_join_with_the_wrong_password_fails_and_says_so() -> None:
    async with TinyRelay() as relay:
        session = MediaSession(HOST, MediaOptions(join_timeout=0.6), "watch")
        session.negotiated(relay.admit("watch", await session.open(), wrong_password=True))
        with pytest.raises(JoinError, match=r"audio|video"):
            await session.join()
        await session.close()


async def test_consent_is_lost_when_the_relay_falls_silent() -> None:
    async with TinyRelay() as relay:
        session = MediaSession(HOST, MediaOptions(consent_timeout=0.5), "watch")
        session.negotiated(relay.admit("watch", await session.open()))
        await session.join()
        relay.mute = True
        started = time.monotonic()
        event = await asyncio.wait_for(session.events.get(), 5)
        assert isinstance(event, ConsentLost)
        assert time.monotonic() - started < 2
        await session.close()
