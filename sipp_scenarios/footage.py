"""A little picture and sound, made on the spot, for phones that must send some."""

import math
import struct
import wave
from pathlib import Path

import av
import numpy as np

RATE = 15
"""Pictures a second."""


def make_clip(path: Path, seconds: int = 2) -> Path:
    """A bar that moves over grey, as a video file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", RATE, {"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(seconds * RATE):
            picture = np.full((120, 160, 3), 90, np.uint8)
            picture[:, number * 4 % 150 : number * 4 % 150 + 10] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def make_tone(path: Path, seconds: int = 2) -> Path:
    """440 Hz, 8 kHz mono, as a WAV file."""
    samples = (round(8000 * math.sin(2 * math.pi * 440 * number / 8000)) for number in range(seconds * 8000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return path
