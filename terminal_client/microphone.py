"""Where sound comes from: an audio file looped, a tone, silence, or a sound device.

All give 20 ms blocks of 160 samples, 8 kHz mono int16: what a telephone's narrow-band codecs take.
"""

import itertools
import queue
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Protocol

import av
import av.error
import numpy as np
import numpy.typing as npt

from terminal_client.sound_device import open_stream
from terminal_client.streams import SourceError

Samples = npt.NDArray[np.int16]

SAMPLE_RATE: Final = 8000
BLOCK_SAMPLES: Final = 160
BLOCK_SECONDS: Final = BLOCK_SAMPLES / SAMPLE_RATE
TONE_HERTZ: Final = 440
TONE_LEVEL: Final = 4000
DEVICE_BACKLOG: Final = 10
"""Blocks a device may be ahead of us before the oldest are dropped."""


class SoundSource(Protocol):
    """A microphone, file or generator. Used from one thread only."""

    def read(self) -> Samples | None:
        """The next 20 ms, or None at the source's end. Devices block until they have them. Raises SourceError."""

    def close(self) -> None:
        """Let go of the device or file."""


def open_microphone(name: str, *, loop: bool = True) -> SoundSource:
    """The source a user named: `synthetic`, `none`, a sound device (`default`, its index or name), or a file."""
    if name == "synthetic":
        return Tone()
    if name == "none":
        return Silence()
    if Path(name).is_file():
        return SoundFile(Path(name), loop=loop)
    return SoundDevice(name)


def file_blocks(path: Path, *, loop: bool = False) -> Generator[Samples, None, None]:
    """The sound of a file in 20 ms blocks; looped without a seam, a last partial block dropped. Raises SourceError."""
    pending = np.zeros(0, dtype=np.int16)
    for passes in itertools.count():
        if passes and not loop:
            return
        heard = 0
        for samples in _file_samples(path):
            heard += samples.size
            pending = np.concatenate((pending, samples))
            whole = pending.size - pending.size % BLOCK_SAMPLES
            yield from pending[:whole].reshape(-1, BLOCK_SAMPLES)
            pending = pending[whole:]
        if heard < BLOCK_SAMPLES:
            raise SourceError(f"microphone {path}: no sound in this file")


class SoundFile:
    """A file played at its own speed, looped unless told otherwise; the reader paces it."""

    def __init__(self, path: Path, *, loop: bool = True) -> None:
        self._blocks = file_blocks(path, loop=loop)
        self._first: Samples | None = next(self._blocks, None)

    def read(self) -> Samples | None:
        """The next 20 ms, or None at the end."""
        first, self._first = self._first, None
        return next(self._blocks, None) if first is None else first

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


class Tone:
    """A steady tone."""

    def __init__(self) -> None:
        self._position = 0

    def read(self) -> Samples | None:
        """The next 20 ms."""
        times = (self._position + np.arange(BLOCK_SAMPLES)) / SAMPLE_RATE
        self._position = (self._position + BLOCK_SAMPLES) % SAMPLE_RATE  # 440 whole periods a second
        return (TONE_LEVEL * np.sin(2 * np.pi * TONE_HERTZ * times)).astype(np.int16)

    def close(self) -> None:
        """Nothing to let go of."""


class Silence:
    """No microphone, yet a stream that keeps the call alive."""

    def read(self) -> Samples | None:
        """20 ms of nothing."""
        return np.zeros(BLOCK_SAMPLES, dtype=np.int16)

    def close(self) -> None:
        """Nothing to let go of."""


class SoundDevice:
    """A microphone through PortAudio; its own clock paces the reader."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._blocks: queue.Queue[Samples] = queue.Queue(DEVICE_BACKLOG)
        self._stream = open_stream("microphone", name, SAMPLE_RATE, BLOCK_SAMPLES, self._arrived)

    def read(self) -> Samples | None:
        """The next 20 ms the device delivers."""
        try:
            return self._blocks.get(timeout=1.0)
        except queue.Empty:
            raise SourceError(f"microphone {self._name}: delivers no sound any more") from None

    def close(self) -> None:
        """Stop the device."""
        self._stream.stop()
        self._stream.close()

    def _arrived(self, samples: Samples, frames: int, time: Any, status: Any) -> None:
        if self._blocks.full():
            self._blocks.get_nowait()
        self._blocks.put_nowait(samples[:, 0].copy())


def _file_samples(path: Path) -> Generator[Samples, None, None]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise SourceError(f"microphone {path}: no sound in this file")
            for frame in itertools.chain(container.decode(container.streams.audio[0]), (None,)):
                for resampled in resampler.resample(frame):
                    yield resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)
    except (OSError, av.error.FFmpegError) as error:
        raise SourceError(f"microphone {path}: {error.strerror or error}") from error
