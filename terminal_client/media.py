"""The media of one call, as signalling drives it: open ports, hear the answer, join, send or receive, close.

Capture, encoding, decoding, playout and recording run in threads that release the GIL; packets, reports and timers
run on the event loop. Whatever a thread has to say reaches the loop by `call_soon_threadsafe`.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from protocols.rtp.h264 import packetize, split_annex_b
from protocols.rtp.packet import RtpPacket
from protocols.rtp.sequence import TIMESTAMP_BITS, Unwrapper
from protocols.sdp import H264Format
from terminal_client.audio_codec import open_codec
from terminal_client.audio_playout import SoundPlayer
from terminal_client.keypad import send_key
from terminal_client.microphone import SAMPLE_RATE, Samples
from terminal_client.rates import Rates
from terminal_client.receiving import PictureReceiver
from terminal_client.recorder import Recorder
from terminal_client.report import AudioReport, MediaReport, SentFrame
from terminal_client.rtp_session import RtpSession, SessionUser
from terminal_client.sending import PictureSender, SoundSender
from terminal_client.sinks import open_speaker
from terminal_client.snapshot import write_png
from terminal_client.streams import (
    ConsentLost,
    FirstSound,
    KeyframeRequested,
    LocalMedia,
    MediaEvent,
    MediaOptions,
    MediaStats,
    Medium,
    RemoteMedia,
    Role,
    StreamSilent,
)
from terminal_client.video_buffer import VideoBuffer
from terminal_client.video_encoder import CLOCK_RATE, AccessUnit, VideoEncoder

SILENT_AFTER: Final = 2.0
WATCH_INTERVAL: Final = 1.0
PACED_PART: Final = 0.5
"""A picture's packets leave within this part of the frame interval."""


class MediaSession:
    """Sound and picture of one call. All methods belong to the event loop it was made on."""

    def __init__(self, local_host: str, options: MediaOptions, role: Role) -> None:
        self.events: asyncio.Queue[MediaEvent] = asyncio.Queue()
        self._host = local_host
        self._options = options
        self._role = role
        self._loop = asyncio.get_running_loop()
        self._remote = RemoteMedia(None, None)
        self._audio = RtpSession("audio", SAMPLE_RATE, self._user("audio", self._sound_arrived))
        self._video = RtpSession("video", CLOCK_RATE, self._user("video", self._picture_arrived))
        self._pictures: PictureSender | None = None
        self._sounds: SoundSender | None = None
        self._sent: list[SentFrame] = []
        self._muted = False
        self._receiving = False
        self._buffer = VideoBuffer()
        self._lost_before = 0
        """Pictures lost in streams that ended."""
        self._buffer_ssrc: int | None = None
        self._buffer_timer: asyncio.TimerHandle | None = None
        self._viewer: PictureReceiver | None = None
        self._player: SoundPlayer | None = None
        self._sound_ssrc: int | None = None
        self._sound_clock = Unwrapper(TIMESTAMP_BITS)
        self._recorder: Recorder | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._silent: set[Medium] = set()
        self._rates = Rates()
        self._opened_at = time.monotonic()
        self._joined_at: float | None = None
        self._sending_from: float | None = None
        self._first_sound_at: float | None = None
        self._requests_sent = self._requests_received = 0

    async def open(self) -> LocalMedia:
        """Bind the ports that our offer will name. Raises OSError."""
        audio, video = await self._audio.open(self._host), await self._video.open(self._host)
        return LocalMedia(self._host, audio, video)

    def negotiated(self, remote: RemoteMedia) -> None:
        """The far end's description, again after every re-offer."""
        self._remote = remote
        for session, stream in ((self._audio, remote.audio), (self._video, remote.video)):
            if stream is not None:
                session.connect(stream)

    async def join(self) -> None:
        """Prove ourselves on every accepted m-line that asks for it. Raises JoinError."""
        limits = self._options.join_timeout, self._options.consent_timeout
        accepted = [
            session
            for session, stream in ((self._audio, self._remote.audio), (self._video, self._remote.video))
            if stream is not None
        ]
        await asyncio.gather(*(session.join(*limits) for session in accepted))
        self._joined_at = time.monotonic()

    async def start_sending(self) -> None:
        """Open camera and microphone and go. Raises SourceError; harmless when already sending."""
        remote = self._remote
        self._sending_from = self._sending_from or time.monotonic()
        if self._role == "broadcast":
            self._record(video=remote.video is not None and remote.video.sends)
        if remote.video is not None and remote.video.sends and self._pictures is None:
            self._pictures = await asyncio.to_thread(
                PictureSender,
                self._options,
                self._new_encoder(remote.video.fmtp),
                lambda unit, at: self._on_loop(self._send_picture, unit, at),
                self._tell,
                first_counter=self._sent[-1].counter + 1 if self._sent else 0,
                first_pts=self._clock(CLOCK_RATE),
            )
        if remote.audio is not None and remote.audio.sends and self._sounds is None:
            codec = open_codec(remote.audio.codec, remote.audio.fmtp)
            start = self._clock(SAMPLE_RATE)
            self._sounds = SoundSender(
                self._options,
                codec,
                lambda payload, samples: self._on_loop(self._audio.send_frame, [payload], start + samples),
                self._said,
                self._tell,
            )
            self._sounds.muted = self._muted
        self._keep_watch()

    def start_receiving(self) -> None:
        """Decode, play and record what comes from now on. Raises SourceError."""
        if self._receiving:
            return
        remote, options = self._remote, self._options
        if self._role == "watch":
            self._record(video=remote.video is not None and remote.video.receives)
        if remote.video is not None and self._viewer is None:
            parameter_sets = H264Format.from_fmtp(remote.video.fmtp).parameter_sets
            self._viewer = PictureReceiver(
                self._tell,
                lambda: self._on_loop(self._want_keyframe),
                self._recorder if self._role == "watch" else None,
                parameter_sets,
            )
        if remote.audio is not None and self._player is None:
            self._player = SoundPlayer(
                open_codec(remote.audio.codec, remote.audio.fmtp),
                open_speaker(options.speaker),
                self._heard,
                options.playout_ms / 1000,
                options.playout_max_ms / 1000,
            )
            self._player.start()
        self._receiving = True
        self._keep_watch()

    async def pause(self) -> None:
        """Stop sending and ignore what comes, until `start_sending` or `start_receiving` is called again."""
        self._receiving = False
        await asyncio.to_thread(self._stop_sources)

    def switch_camera(self) -> None:
        """Go on with the next of the cameras."""
        if self._pictures is not None:
            self._pictures.switch_camera()

    def mute(self, muted: bool) -> None:
        """Send silence instead of the microphone's sound, or stop doing so."""
        self._muted = muted
        if self._sounds is not None:
            self._sounds.muted = muted

    async def press(self, key: str) -> bool:
        """Send a key as telephone event, which takes its time; False if the far end knows none."""
        since = self._opened_at if self._sending_from is None else self._sending_from
        return await send_key(self._audio, key, int((time.monotonic() - since) * SAMPLE_RATE))

    async def snapshot(self, path: Path) -> bool:
        """Write the picture shown (watching) or sent (broadcasting) last as PNG; False if there is none yet."""
        source = self._viewer if self._role == "watch" else self._pictures
        planes = None if source is None else await asyncio.to_thread(source.last_picture)
        return planes is not None and await asyncio.to_thread(write_png, path, planes)

    def stats(self) -> MediaStats:
        """A glance for the connected screen."""
        now = time.monotonic()
        audio, video = self._audio.report(), self._video.report()
        shown = 0 if self._viewer is None else len(self._viewer.shown)
        frames_sent = len(self._sent) + (0 if self._pictures is None else len(self._pictures.sent))
        return MediaStats(
            sending=self._pictures is not None or self._sounds is not None,
            receiving=self._receiving,
            muted=self._muted,
            camera="" if self._pictures is None else self._pictures.camera,
            frames_sent=frames_sent,
            frames_decoded=shown,
            frames_lost=self._frames_lost(),
            fps=self._rates.of("frames", shown if self._role == "watch" else frames_sent, now),
            send_kbps=self._rates.of("sent", audio.bytes_sent + video.bytes_sent, now) * 8 / 1000,
            receive_kbps=self._rates.of("received", audio.bytes_received + video.bytes_received, now) * 8 / 1000,
            packets_lost=audio.packets_lost + video.packets_lost,
            jitter_ms=max(audio.jitter_ms, video.jitter_ms),
            playout_ms=0.0 if self._player is None else self._player.buffer.delay_ms,
            keyframe_requests=self._requests_sent + self._requests_received,
        )

    async def close(self) -> MediaReport:
        """Stop everything, complete the files, free the ports; what the session knows comes back."""
        for timer in (self._watch, self._buffer_timer):
            if timer is not None:
                timer.cancel()
        self._receiving = False
        if self._options.snapshot is not None:
            await self.snapshot(self._options.snapshot)
        await asyncio.to_thread(self._stop_sources)
        await asyncio.to_thread(self._stop_sinks)
        report = self._report()
        self._audio.close()
        self._video.close()
        return report

    def _record(self, *, video: bool) -> None:
        if self._options.record is not None and self._recorder is None:
            self._recorder = Recorder(self._options.record, self._tell, video=video)

    def _new_encoder(self, fmtp: str) -> VideoEncoder:
        options = self._options
        single_units = H264Format.from_fmtp(fmtp).packetization_mode == 0
        return VideoEncoder(
            options.width,
            options.height,
            options.fps,
            options.video_bitrate,
            options.keyframe_seconds,
            max_slice_bytes=options.packet_bytes if single_units else 0,
        )

    def _clock(self, rate: int) -> int:
        """Now, in clock units since sending began first: sound and picture count from the same origin."""
        since = self._sending_from
        return 0 if since is None else int((time.monotonic() - since) * rate)

    def _user(self, medium: Medium, arrived: Callable[[RtpPacket, float], None]) -> SessionUser:
        return SessionUser(
            packet=arrived,
            keyframe_wanted=self._keyframe_wanted,
            consent_lost=lambda: self.events.put_nowait(ConsentLost(time.monotonic(), medium)),
        )

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(lambda: call(*arguments))

    def _tell(self, event: MediaEvent) -> None:
        """From any thread."""
        self._on_loop(self.events.put_nowait, event)

    def _send_picture(self, unit: AccessUnit, captured_at: float) -> None:
        remote = self._remote.video
        if remote is None or not remote.sends:
            return
        mode = H264Format.from_fmtp(remote.fmtp).packetization_mode
        payloads = packetize(split_annex_b(unit.data), self._options.packet_bytes, mode)
        self._video.send_frame(payloads, unit.pts, PACED_PART / self._options.fps)
        if self._recorder is not None and self._role == "broadcast":
            size = (self._options.width, self._options.height)
            self._recorder.picture(unit.data, unit.pts, keyframe=unit.keyframe, size=size, at=captured_at)

    def _keyframe_wanted(self) -> None:
        self._requests_received += 1
        self.events.put_nowait(KeyframeRequested(time.monotonic()))
        if self._pictures is not None:
            self._pictures.request_keyframe()

    def _picture_arrived(self, packet: RtpPacket, now: float) -> None:
        if not self._receiving or self._viewer is None:
            return
        if packet.ssrc != self._buffer_ssrc:
            if self._buffer_ssrc is not None:
                self._lost_before += self._buffer.counts.frames_lost
                self._buffer = VideoBuffer()
            self._buffer_ssrc = packet.ssrc
        for picture in self._buffer.put(packet, now):
            self._viewer.put(picture)
        self._ask()

    def _poll_buffer(self) -> None:
        self._buffer_timer = None
        if self._viewer is not None and self._receiving:
            for picture in self._buffer.poll(time.monotonic()):
                self._viewer.put(picture)
            self._ask()

    def _ask(self) -> None:
        wish = self._buffer.feedback(time.monotonic())
        self._requests_sent += wish.pli
        if wish.pli or wish.nack:
            self._video.ask(wish)
        if self._buffer_timer is not None:
            self._buffer_timer.cancel()
        due = self._buffer.next_timer()
        self._buffer_timer = None if due is None else self._loop.call_at(due, self._poll_buffer)

    def _want_keyframe(self) -> None:
        self._buffer.want_keyframe(time.monotonic())
        self._ask()

    def _sound_arrived(self, packet: RtpPacket, now: float) -> None:
        if not self._receiving or self._player is None:
            return
        if packet.ssrc != self._sound_ssrc:
            self._sound_ssrc = packet.ssrc
            self._sound_clock = Unwrapper(TIMESTAMP_BITS)
        self._player.put(self._sound_clock.unwrap(packet.timestamp), packet.payload, now)

    def _said(self, samples: Samples, at: float) -> None:
        """From the microphone's thread."""
        if self._recorder is not None and self._role == "broadcast":
            self._recorder.sound(samples, at)

    def _heard(self, samples: Samples, at: float) -> None:
        """From the playout thread."""
        if self._first_sound_at is None:
            self._first_sound_at = at
            self._tell(FirstSound(at))
        if self._recorder is not None and self._role == "watch":
            self._recorder.sound(samples, at)

    def _keep_watch(self) -> None:
        """Once a second: has a stream that used to come fallen silent?"""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(WATCH_INTERVAL, self._keep_watch)
        now = time.monotonic()
        sessions: tuple[tuple[Medium, RtpSession], ...] = (("audio", self._audio), ("video", self._video))
        for medium, session in sessions:
            last = session.last_received_at
            if last is None or now - last < SILENT_AFTER:
                self._silent.discard(medium)
            elif medium not in self._silent and self._receiving:
                self._silent.add(medium)
                self.events.put_nowait(StreamSilent(now, medium))

    def _stop_sources(self) -> None:
        pictures, self._pictures = self._pictures, None
        sounds, self._sounds = self._sounds, None
        if pictures is not None:
            pictures.close()
            self._sent += pictures.sent
        if sounds is not None:
            sounds.close()

    def _stop_sinks(self) -> None:
        if self._viewer is not None:
            self._viewer.close()
        if self._player is not None:
            self._player.close()
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def _frames_lost(self) -> int:
        lost = self._lost_before + self._buffer.counts.frames_lost
        return lost + (0 if self._viewer is None else self._viewer.undecodable)

    def _report(self) -> MediaReport:
        viewer, player = self._viewer, self._player
        return MediaReport(
            joined_at=self._joined_at,
            sending_from=self._sending_from,
            first_picture_at=None if viewer is None else viewer.first_picture_at,
            live_at=None if viewer is None else viewer.live_at,
            first_sound_at=self._first_sound_at,
            ended_at=time.monotonic(),
            sent=tuple(self._sent),
            received=() if viewer is None else tuple(viewer.shown),
            frames_decoded=0 if viewer is None else len(viewer.shown),
            frames_lost=self._frames_lost(),
            frames_late=0 if viewer is None else viewer.late,
            keyframe_requests_sent=self._requests_sent,
            keyframe_requests_received=self._requests_received,
            microphone=self._options.microphone,
            audio=AudioReport() if player is None else player.buffer.counts,
            audio_rtp=self._audio.report(),
            video_rtp=self._video.report(),
        )
