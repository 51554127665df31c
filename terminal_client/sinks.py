"""Where received sound goes: nowhere, a WAV file, or a sound device. The playout thread writes 20 ms at a time."""

import threading
import wave
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from terminal_client.microphone import BLOCK_SAMPLES, SAMPLE_RATE, Samples
from terminal_client.streams import SourceError

DEVICE_BACKLOG: Final = 10
"""Blocks waiting for the device; beyond it the device's clock is slower than ours and the oldest is dropped."""


class SoundSink(Protocol):
    """Takes what is played. Never blocks: the playout clock is the session's, not the device's."""

    def write(self, samples: Samples) -> None:
        """Play the next 20 ms."""

    def close(self) -> None:
        """Finish the file or let go of the device."""


def open_speaker(name: str) -> SoundSink:
    """The sink a user named: `none`, a file ending in .wav, or a sound device. Raises SourceError."""
    if name == "none":
        return NullSink()
    if name.lower().endswith(".wav"):
        return WavSink(Path(name))
    return DeviceSink(None if name == "device" else int(name) if name.isdigit() else name)


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
            self._file = wave.open(str(path), "wb")  # noqa: SIM115  closed by close()
        except OSError as error:
            raise SourceError(f"speaker {path}: {error.strerror}") from error
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(SAMPLE_RATE)

    def write(self, samples: Samples) -> None:
        """Append 20 ms."""
        self._file.writeframes(samples.astype("<i2", copy=False).tobytes())

    def close(self) -> None:
        """Complete the header and close the file."""
        self._file.close()


class DeviceSink:
    """A loudspeaker through PortAudio, fed from a short backlog that absorbs the two clocks' difference."""

    def __init__(self, device: str | int | None) -> None:
        self._backlog: deque[Samples] = deque(maxlen=DEVICE_BACKLOG)
        self._lock = threading.Lock()
        try:
            import sounddevice  # noqa: PLC0415  PortAudio is missing on servers, where files are used instead

            self._stream = sounddevice.OutputStream(
                SAMPLE_RATE, BLOCK_SAMPLES, device, 1, "int16", callback=self._wanted
            )
            self._stream.start()
        except (OSError, ValueError, RuntimeError) as error:
            # PortAudioError is a RuntimeError; a missing library an OSError; an unknown name a ValueError.
            raise SourceError(f"speaker {device or '(default)'}: {error}; use --speaker none") from error

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
