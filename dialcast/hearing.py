"""Compares the sound of a recording with its source: is it the same, and is any of it missing?

Codecs change waveforms beyond comparison, so both sides are compared as log-mel spectra with each band's mean taken
out: what is left is how the sound moves, which is its own for every sentence and survives a telephone codec.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from terminal_client.microphone import SAMPLE_RATE, file_blocks

Matrix = npt.NDArray[np.float64]

HOP: Final = 80
"""Samples between spectra: 10 ms."""
WINDOW: Final = 256
BANDS: Final = 20
LOWEST: Final = 150.0
HIGHEST: Final = 3600.0
FLOOR: Final = 1e-6
"""Power, relative to full scale in a band, below which everything counts as silence."""
STRETCH: Final = 200
"""Spectra aligned together: two seconds."""
SLACK: Final = 15
"""Spectra by which one stretch may be shifted against the one before: playout holds and skips blocks."""
ACTIVE: Final = 0.03
"""Part of the source's loud level above which a spectrum counts as sound that must be heard."""
MISSING: Final = 0.05
"""Part of the expected level below which sound counts as missing."""
SETTLING: Final = 10
"""Spectra left out at the start: a decoder that comes in the middle of a word needs a moment."""
LEADING: Final = 1.0
"""Seconds of silence allowed before the first sound: it waits for the playout buffer, the picture does not."""
TRAILING: Final = 0.15
"""Seconds of silence allowed at the end: AAC fills its last frame of 1,024 samples up."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """`correlation` of the log-mel spectra after alignment (-1..1); `gap_ratio`: active sound missing (0..1)."""

    correlation: float
    gap_ratio: float


def compare(recording: Path, source: Path, until: float | None = None) -> Hearing:
    """Compare a recording's sound, up to `until` seconds, with a source that was played in a loop.

    Raises SourceError if one of the files has no sound.
    """
    heard = _spectra(_samples(recording), None if until is None else round(until * SAMPLE_RATE))
    expected = _spectra(_samples(source), None)
    loud = heard.sum(axis=1) > FLOOR * BANDS * 10
    leading = min(int(loud.argmax()), round(LEADING * SAMPLE_RATE / HOP))
    trailing = min(int(loud[::-1].argmax()), round(TRAILING * SAMPLE_RATE / HOP))
    heard = heard[leading + SETTLING : len(heard) - trailing]
    if not loud.any() or len(heard) < SLACK:
        return Hearing(0.0, 1.0)
    a, b = np.log10(heard + FLOOR), np.log10(expected + FLOOR)
    places = _align(a - a.mean(axis=0), b - b.mean(axis=0))
    aligned = b[places]
    return Hearing(_correlation(a, aligned), _missing(heard.sum(axis=1), expected[places].sum(axis=1)))


def _align(heard: Matrix, source: Matrix) -> npt.NDArray[np.intp]:
    """For every heard spectrum the index of the source's spectrum that it is."""
    period = len(source)
    folded = np.zeros_like(source)
    np.add.at(folded, np.arange(len(heard)) % period, heard)
    spectrum = np.fft.rfft(folded, axis=0).conj() * np.fft.rfft(source, axis=0)
    shift = int(np.fft.irfft(spectrum.sum(axis=1), n=period).argmax())
    places = np.zeros(len(heard), dtype=np.intp)
    for start in range(0, len(heard), STRETCH):
        part = heard[start : start + STRETCH]
        indices = np.arange(start, start + len(part))
        candidates = sorted(range(shift - SLACK, shift + SLACK + 1), key=lambda at: abs(at - shift))
        shift = max(candidates, key=lambda at: float((part * source[(indices + at) % period]).sum()))
        places[indices] = (indices + shift) % period
    return places


def _correlation(a: Matrix, b: Matrix) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _missing(heard: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    active = expected > ACTIVE * np.percentile(expected, 95)
    if not active.any():
        return 0.0
    gain = float(np.median(heard[active] / expected[active]))
    # Neighbours may carry the energy of an onset that fell between two hops.
    spread = np.maximum.reduce([np.roll(heard, -1), heard, np.roll(heard, 1)])
    return float((spread[active] < MISSING * gain * expected[active]).mean()) if gain > 0 else 1.0


def _samples(path: Path) -> npt.NDArray[np.float64]:
    blocks: Iterator[npt.NDArray[np.int16]] = file_blocks(path)
    return np.concatenate(list(blocks)) / 32768


def _spectra(samples: npt.NDArray[np.float64], limit: int | None) -> Matrix:
    """Mel-band powers, one row every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples[:limit], WINDOW)[::HOP]
    powers = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2 / WINDOW
    return np.asarray(powers @ _mel_bands().T, dtype=np.float64)


def _mel_bands() -> Matrix:
    """Triangular filters (BANDS, WINDOW // 2 + 1), evenly spaced on the mel scale."""
    mels = np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.clip(np.minimum(rising, falling), 0, None)


def _mel(hertz: float) -> float:
    return 2595 * float(np.log10(1 + hertz / 700))
