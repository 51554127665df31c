"""H.264 back into pictures: whole Annex B access units in, at most one picture out of each, without delay."""

import av
import av.codec.context
import av.error
import numpy as np

from terminal_client.stamp import Plane

MAX_PIXELS = 4096 * 2304
"""A few octets can announce a picture that takes hundreds of megabytes; such a stream counts as rubbish."""


class VideoDecoder:
    """Decodes one stream. Not thread-safe; `decode` releases the GIL while it works."""

    def __init__(self) -> None:
        context = av.CodecContext.create("h264", "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count = 1
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.flags |= av.codec.context.Flags.low_delay
        self._context = context

    def decode(self, data: bytes) -> av.VideoFrame | None:
        """The picture coded in one access unit, or None where there is none, or only rubbish."""
        try:
            frames = self._context.decode(av.Packet(data))
        except av.error.FFmpegError:
            return None
        return frames[-1] if frames else None


def planes_of(frame: av.VideoFrame) -> Plane:
    """The picture as a yuv420p array of shape (height * 3 // 2, width)."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    return np.ascontiguousarray(frame.to_ndarray(), dtype=np.uint8)
