"""What broadcasters send: bursts of one size, or frames that x264 made, recorded once and played by source.c."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from protocols.rtp.h264 import packetize, split_annex_b

RECORDED_SECONDS: Final = 10
KEYFRAME_EVERY: Final = 2
"""Seconds."""
WIDTH, HEIGHT = 640, 480
PICTURES: Final = f"testsrc2=size={WIDTH}x{HEIGHT}:rate={{frames}},noise=alls=12:allf=t"
"""Noise, or x264 would not find enough to say for 2 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Frames a second, and of each its packets and their bytes, or the bitrate x264 is told; audio packets a second."""

    frames: int
    packets: int = 0
    bytes: int = 0
    bitrate: int = 0
    sounds: int = 50


TRAFFIC: Final[dict[str, Traffic]] = {
    "steady": Traffic(30, packets=10, bytes=1200),
    "300k": Traffic(15, packets=2, bytes=1250),
    "300k-quiet": Traffic(15, packets=2, bytes=1250, sounds=1),
    "x264-600k": Traffic(30, bitrate=600_000),
    "x264-2000k": Traffic(30, bitrate=2_000_000),
}


def record(traffic: Traffic, trace: Path) -> None:
    """Encodes moving test pictures as a terminal would, and writes the trace that packet.h describes."""
    import av  # noqa: PLC0415 - only for recorded video
    from av.video.codeccontext import VideoCodecContext  # noqa: PLC0415

    encoder = VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.bit_rate, encoder.gop_size = traffic.bitrate, KEYFRAME_EVERY * traffic.frames
    encoder.framerate, encoder.time_base = Fraction(traffic.frames), Fraction(1, traffic.frames)
    rate = str(traffic.bitrate)
    encoder.options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "maxrate": rate,
        "bufsize": rate,
        "x264-params": "sliced-threads=0:scenecut=0",
    }
    wanted = RECORDED_SECONDS * traffic.frames
    with av.open(PICTURES.format(frames=traffic.frames), format="lavfi") as pictures, trace.open("wb") as out:
        for number, picture in zip(range(wanted), pictures.decode(video=0), strict=False):
            picture.pts, picture.time_base, picture.pict_type = number, encoder.time_base, 0
            for packet in encoder.encode(picture):
                for payload in packetize(split_annex_b(bytes(packet))):
                    out.write(struct.pack("<IH", number, len(payload)) + payload)
