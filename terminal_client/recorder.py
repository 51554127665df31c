"""Records a call as MP4: the H.264 exactly as it came, never re-encoded, beside the sound as it was played (AAC).

Picture times are the sender's (RTP, 90 kHz, from the first one), so a recording shows what the sender meant; sound
is laid at the moment it was played, counted from when the first picture was shown. The file is written in fragments:
it plays up to the last keyframe even if the process is killed.
"""

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec

import av
import av.audio.stream
import av.error
import numpy as np

from terminal_client.microphone import SAMPLE_RATE, Samples
from terminal_client.streams import MediaEvent, RecordingFailed, SourceError

VIDEO_CLOCK: Final = Fraction(1, 90_000)
SOUND_BITRATE: Final = 32_000
TOLERANCE: Final = SAMPLE_RATE // 20
"""Sound laid less than 50 ms beside its place is appended; beyond that the pause is filled with silence."""
FRAGMENTED: Final = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}


P = ParamSpec("P")


def _guarded(write: "Callable[Concatenate[Recorder, P], None]") -> "Callable[Concatenate[Recorder, P], None]":
    """One thread at a time; after the first failure, which is told, nothing more is written."""

    @wraps(write)
    def guarded(recorder: "Recorder", /, *arguments: P.args, **options: P.kwargs) -> None:
        with recorder.lock:
            if recorder.failed:
                return
            try:
                write(recorder, *arguments, **options)
            except (OSError, av.error.FFmpegError) as error:
                recorder.fail(str(error.strerror or error))

    return guarded


class Recorder:
    """One MP4 file, fed by the decoding thread and the playout thread. Without video it records sound alone."""

    def __init__(self, path: Path, tell: Callable[[MediaEvent], None], *, video: bool = True) -> None:
        """Raises SourceError if the file cannot be made; what goes wrong later is told as RecordingFailed."""
        try:
            path.write_bytes(b"")  # PyAV opens it with the first packet only, when nobody could be told any more
            self._container = av.open(str(path), "w", format="mp4", options=FRAGMENTED)
        except OSError as error:
            raise SourceError(f"recording {path}: {error.strerror}") from error
        self._path = path
        self._tell = tell
        self.failed = False
        self.lock = threading.Lock()
        self._with_video = video
        self._picture_stream: av.VideoStream | None = None
        self._sound_stream: av.audio.stream.AudioStream | None = None
        self._origin: float | None = None
        self._samples_written = 0

    @_guarded
    def picture(self, data: bytes, pts: int, *, keyframe: bool, size: tuple[int, int], at: float) -> None:
        """One access unit (Annex B, decodable) of `size` (width, height), shown at monotonic time `at`."""
        if self._picture_stream is None:
            if self._origin is not None:
                return  # begun as a recording of sound alone
            stream = self._container.add_mux_stream("h264", width=size[0], height=size[1], time_base=VIDEO_CLOCK)
            assert isinstance(stream, av.VideoStream)
            self._picture_stream = stream
            self._begin(at)
        packet = av.Packet(data)
        packet.stream = self._picture_stream
        packet.pts = packet.dts = pts
        packet.time_base = VIDEO_CLOCK
        packet.is_keyframe = keyframe
        self._container.mux(packet)

    @_guarded
    def sound(self, samples: Samples, at: float) -> None:
        """8 kHz mono int16, played at monotonic time `at`; dropped as long as the first picture is awaited."""
        if self._origin is None:
            if self._with_video:
                return
            self._begin(at)
        assert self._origin is not None
        place = round((at - self._origin) * SAMPLE_RATE)
        if place > self._samples_written + TOLERANCE:
            self._write(np.zeros(place - self._samples_written, np.int16))
        elif place < 0:
            return
        self._write(samples)

    @_guarded
    def close(self) -> None:
        """Complete the file. A recording to which nothing came is empty."""
        if self._sound_stream is not None:
            for packet in self._sound_stream.encode(None):
                self._container.mux(packet)
        self._container.close()

    def fail(self, reason: str) -> None:
        """Give up; the call goes on without a recording."""
        self.failed = True
        self._tell(RecordingFailed(time.monotonic(), f"recording {self._path}: {reason}"))

    def _begin(self, at: float) -> None:
        sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(sound, av.audio.stream.AudioStream)
        sound.bit_rate = SOUND_BITRATE
        self._sound_stream = sound
        self._origin = at

    def _write(self, samples: Samples) -> None:
        assert self._sound_stream is not None
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self._samples_written
        frame.time_base = Fraction(1, SAMPLE_RATE)
        self._samples_written += samples.size
        for packet in self._sound_stream.encode(frame):
            self._container.mux(packet)
