"""Whether what a phone heard or saw is what was said or shown: figures between unlike and alike."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
RATE = 8000
WINDOW, HOP, BANDS = 256, 80, 20


def samples(sound: Path | bytes) -> Samples:
    """A sound file's or recording's track, or raw signed 16-bit samples at 8 kHz, as numbers between -1 and 1."""
    if isinstance(sound, Path):
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        with av.open(str(sound)) as source:
            frames = [out for frame in source.decode(audio=0) for out in resampler.resample(frame)]
        sound = b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames)
    return np.frombuffer(sound, np.int16) / 32768


def speech_likeness(heard: Samples, spoken: Samples) -> float:
    """Correlation of the log-mel spectra at the best alignment; `heard` is a part of `spoken`. 1 is the same."""
    short, long = _log_mel(heard), _log_mel(spoken)
    if len(short) < 100 or len(long) < len(short):
        return 0.0
    return max(_correlation(short, long[lag : lag + len(short)]) for lag in range(len(long) - len(short) + 1))


def loudness(heard: Samples) -> float:
    """Root mean square, 0 for silence and for nothing at all."""
    return float(np.sqrt(np.mean(heard**2))) if len(heard) else 0.0


def picture_likeness(picture: Path | av.VideoFrame, clip: Path) -> float:
    """Luma PSNR in dB against the frame of the clip that it resembles most."""
    seen = _luma(picture if isinstance(picture, av.VideoFrame) else _first_frame(picture))
    height, width = seen.shape
    with av.open(str(clip)) as source:
        errors = [
            np.mean((_luma(frame.reformat(width=width, height=height)) - seen) ** 2) for frame in source.decode(video=0)
        ]
    return float(10 * np.log10(255**2 / max(min(errors), 1e-9)))


def _first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as source:
        return next(source.decode(video=0))


def _luma(frame: av.VideoFrame) -> NDArray[np.float32]:
    return frame.to_ndarray(format="gray").astype(np.float32)


def _log_mel(sound: Samples) -> Samples:
    if len(sound) < WINDOW:
        return np.zeros((0, BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    edges = np.interp(np.linspace(0, _mel(3400), BANDS + 2), _mel(np.arange(0, 4001)), np.arange(0, 4001))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    bands = [np.clip(np.interp(bins, edges[i : i + 3], [0, 1, 0], 0, 0), 0, 1) for i in range(BANDS)]
    spectrum = np.log10(power @ np.array(bands).T + 0.1)
    return np.asarray(spectrum - spectrum.mean(axis=0))


def _mel(hertz: float | NDArray[np.int64]) -> Samples:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def _correlation(one: Samples, other: Samples) -> float:
    other = other - other.mean(axis=0)
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale else 0.0
