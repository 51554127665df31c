"""Where received sound goes: nowhere, a WAV file, or a sound device. The playout thread writes 20 ms at a time."""

import threading
import wave
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from terminal_client.microphone import BLOCK_SAMPLES, SAMPLE_RATE, Samples
from terminal_client.sound_device import open_stream
from terminal_client.streams import SourceError

DEVICE_BACKLOG: Final = 10
"""Blocks waiting for the device; beyond it the device's clock is slower than ours and the oldest is dropped."""


class SoundSink(Protocol):
    """Takes what is played. Never blocks: the playout clock is the session's, not the device's."""

    def write(self, samples: Samples) -> None:
        """Play the next 20 ms."""

    def close(self) -> None:
        """Finish the file or let go of the device."""


def is_file(name: str) -> bool:
    """Whether a speaker's name is that of a file to write."""
    return name.lower().endswith(".wav")


def open_speaker(name: str) -> SoundSink:
    """The sink a user named: `none`, a file ending in .wav, or a sound device. Raises SourceError."""
    if name == "none":
        return NullSink()
    if is_file(name):
        return WavSink(Path(name))
    return DeviceSink(name)


class NullSink:
    """Plays to nobody; the clock still runs, so that recording and statistics do."""

    def write(self, samples: Samples) -> None:
        """Forget the samples."""

    def close(self) -> None:
        """Nothing to let go of."""


class WavSink:
    """8 kHz mono, 16 bit."""

    def __init__(self, path: Path) -> None:
        try:
            self._raw = path.open("wb")  # by ourselves: a Wave_write that could not open complains when it is deleted
        except OSError as error:
            raise SourceError(f"speaker {path}: {error.strerror}") from error
        self._file = wave.open(self._raw, "wb")  # noqa: SIM115  closed by close()
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(SAMPLE_RATE)

    def write(self, samples: Samples) -> None:
        """Append 20 ms."""
        self._file.writeframes(samples.astype("<i2", copy=False).tobytes())

    def close(self) -> None:
        """Complete the header and close the file."""
        self._file.close()
        self._raw.close()


class DeviceSink:
    """A loudspeaker through PortAudio, fed from a short backlog that absorbs the two clocks' difference."""

    def __init__(self, name: str) -> None:
        self._backlog: deque[Samples] = deque(maxlen=DEVICE_BACKLOG)
        self._lock = threading.Lock()
        self._stream = open_stream("speaker", name, SAMPLE_RATE, BLOCK_SAMPLES, self._wanted)

    def write(self, samples: Samples) -> None:
        """Queue 20 ms for the device."""
        with self._lock:
            self._backlog.append(samples)

    def close(self) -> None:
        """Stop the device."""
        self._stream.stop()
        self._stream.close()

    def _wanted(self, out: Samples, frames: int, time: Any, status: Any) -> None:
        with self._lock:
            samples = self._backlog.popleft() if self._backlog else np.zeros(BLOCK_SAMPLES, np.int16)
        out[:, 0] = samples
