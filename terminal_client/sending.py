"""The broadcaster's eye and ear: threads that capture, stamp and encode at the pace of the monotonic clock.

Both hand their results over by plain callables, called from the thread: the session moves them to its event loop.
A thread that is late skips; it never sends in a burst what should have been sent before.
"""

import itertools
import threading
import time
from collections.abc import Callable

import numpy as np

from terminal_client.audio_codec import AudioCodec
from terminal_client.capture import PictureSource, open_camera
from terminal_client.microphone import BLOCK_SAMPLES, BLOCK_SECONDS, Samples, SoundSource, open_microphone
from terminal_client.report import SentFrame
from terminal_client.stamp import Plane, stamp
from terminal_client.streams import MediaEvent, MediaOptions, SourceEnded, SourceError
from terminal_client.video_encoder import CLOCK_RATE, AccessUnit, VideoEncoder

MAX_SOUND_LAG = 0.2
"""Seconds the sound thread may catch up; beyond that it skips."""


class PictureSender:
    """Sends pictures of one camera after another. Opening the first camera may raise SourceError."""

    def __init__(
        self,
        options: MediaOptions,
        encoder: VideoEncoder,
        send: Callable[[AccessUnit, float], None],
        tell: Callable[[MediaEvent], None],
        *,
        first_counter: int = 0,
        first_pts: int = 0,
    ) -> None:
        """`send(unit, captured_at)`; counters and 90 kHz times go on from where an earlier sender stopped."""
        self.sent: list[SentFrame] = []
        self._first_counter = first_counter
        self._first_pts = first_pts
        self._options = options
        self._encoder = encoder
        self._send = send
        self._tell = tell
        self._cameras = itertools.cycle(options.cameras)
        self.camera, self._source = self._open_next()
        self._last: Plane | None = None
        self._keyframe = threading.Event()
        self._keyframe.set()
        self._switch = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def request_keyframe(self) -> None:
        """Make the next picture a keyframe."""
        self._keyframe.set()

    def switch_camera(self) -> None:
        """Go on with the next camera of the list; if it cannot be opened, the present one stays."""
        self._switch.set()

    def last_picture(self) -> Plane | None:
        """The picture sent last, as yuv420p planes."""
        return self._last

    def close(self) -> None:
        """Stop capturing and free the camera."""
        self._closing.set()
        self._thread.join()

    def _open_next(self) -> tuple[str, PictureSource]:
        options = self._options
        name = next(self._cameras)
        return name, open_camera(name, options.width, options.height, options.fps, loop=options.loop)

    def _run(self) -> None:
        try:
            self._capture()
        except SourceError as error:
            self._tell(SourceEnded(time.monotonic(), "video", str(error)))
        finally:
            self._source.close()

    def _capture(self) -> None:
        start, fps = time.monotonic(), self._options.fps
        tick = source_start = 0
        while not self._closing.wait(max(0.0, start + tick / fps - time.monotonic())):
            if self._switch.is_set():
                self._switch.clear()
                source_start = self._change_camera(tick, source_start)
            picture = self._source.read(tick - source_start)
            if picture is None:
                self._tell(SourceEnded(time.monotonic(), "video"))
                return
            captured_at = time.monotonic()
            counter = self._first_counter + tick
            if self._options.stamp:
                stamp(picture.planes, counter)
            self._last = picture.planes
            keyframe = self._keyframe.is_set()
            if keyframe:
                self._keyframe.clear()
            pts = self._first_pts + tick * CLOCK_RATE // fps
            unit = self._encoder.encode(picture.planes, pts, keyframe=keyframe)
            if unit is not None:
                self._send(unit, captured_at)
                self.sent.append(SentFrame(counter, captured_at, unit.pts, self.camera, picture.index))
            tick = max(tick + 1, int((time.monotonic() - start) * fps))

    def _change_camera(self, tick: int, source_start: int) -> int:
        try:
            camera, source = self._open_next()
        except SourceError as error:
            self._tell(SourceEnded(time.monotonic(), "video", str(error)))
            return source_start
        self._source.close()
        self.camera, self._source = camera, source
        self._keyframe.set()
        return tick


class SoundSender:
    """Sends 20 ms of sound every 20 ms; while muted it sends silence, which keeps the stream alive."""

    def __init__(
        self,
        options: MediaOptions,
        codec: AudioCodec,
        send: Callable[[bytes, int], None],
        said: Callable[[Samples, float], None],
        tell: Callable[[MediaEvent], None],
    ) -> None:
        """`send(payload, samples)`: `samples` counts 8 kHz from the thread's start. May raise SourceError.

        `said(samples, at)` gets the sound itself, with the monotonic time of its capture.
        """
        self.muted = False
        self._codec = codec
        self._send = send
        self._said = said
        self._tell = tell
        self._source: SoundSource = open_microphone(options.microphone, loop=options.loop)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="microphone", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and free the microphone."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        reason = ""
        try:
            self._capture()
        except SourceError as error:
            reason = str(error)
        finally:
            self._source.close()
        if not self._closing.is_set():
            self._tell(SourceEnded(time.monotonic(), "audio", reason))

    def _capture(self) -> None:
        start = time.monotonic()
        block = 0
        while not self._closing.wait(max(0.0, start + block * BLOCK_SECONDS - time.monotonic())):
            samples = self._source.read()
            if samples is None:
                return
            if self.muted:
                samples = np.zeros_like(samples)
            self._send(self._codec.encode(samples), block * BLOCK_SAMPLES)
            self._said(samples, time.monotonic())
            block += 1
            if time.monotonic() - start - block * BLOCK_SECONDS > MAX_SOUND_LAG:
                block = int((time.monotonic() - start) / BLOCK_SECONDS)
