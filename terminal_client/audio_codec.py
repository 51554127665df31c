"""The telephone's narrow-band codecs: AMR-NB (RFC 4867) through libopencore, PCMU and PCMA (G.711, RFC 3551).

A codec turns 20 ms of sound into one RTP payload, cuts received payloads into frames of equal length, and decodes
frames one at a time, because the playout buffer decides frame by frame what is played.
"""

from typing import Final, Protocol

import av
import av.error
import numpy as np

from protocols.rtp import amr
from protocols.sdp import AmrFormat
from terminal_client.microphone import BLOCK_SAMPLES, SAMPLE_RATE, Samples

AMR_BITRATES: Final = (4750, 5150, 5900, 6700, 7400, 7950, 10200, 12200)
"""By mode, TS 26.071."""
PCM_FRAME_SAMPLES: Final = 80
"""G.711 comes in packets of 10, 20, 30 ms and more: 10 ms divides them all."""
FULL_SCALE: Final = 32767


class AudioCodec(Protocol):
    """One direction of one stream each for encoding and decoding; not thread-safe."""

    frame_samples: int
    """Samples of 8 kHz a frame decodes to."""

    def encode(self, samples: Samples) -> bytes:
        """The payload for 20 ms of sound."""

    def frames(self, payload: bytes) -> list[bytes]:
        """The frames in a received payload, oldest first; none if it makes no sense."""

    def decode(self, frame: bytes) -> Samples | None:
        """`frame_samples` of sound, or None where the frame is damaged or empty."""


def open_codec(name: str, fmtp: str = "") -> AudioCodec:
    """The codec with that encoding name and those parameters. Raises ValueError for one we do not have."""
    match name.upper():
        case "AMR":
            return AmrNarrowband(AmrFormat.from_fmtp(fmtp))
        case "PCMU":
            return G711("pcm_mulaw")
        case "PCMA":
            return G711("pcm_alaw")
    raise ValueError(f"no codec for {name}")


class AmrNarrowband:
    """AMR-NB in the negotiated packing, at the highest mode that the far end allows."""

    frame_samples = BLOCK_SAMPLES

    def __init__(self, parameters: AmrFormat) -> None:
        modes = [mode for mode in parameters.mode_set if mode < len(AMR_BITRATES)]
        self._octet_align = parameters.octet_align
        self._encoder = _context("libopencore_amrnb", "w", AMR_BITRATES[max(modes, default=7)])
        self._decoder = _context("amrnb", "r")

    def encode(self, samples: Samples) -> bytes:
        """One frame a payload, no mode request."""
        frames = [amr.AmrFrame.from_storage(bytes(packet)) for packet in self._encoder.encode(_frame(samples))]
        return amr.build(frames, octet_align=self._octet_align)

    def frames(self, payload: bytes) -> list[bytes]:
        """Frames in storage format; 20 ms without data stay in place as a lone header octet."""
        try:
            parsed = amr.parse(payload, octet_align=self._octet_align)
        except amr.AmrError:
            return []
        return [frame.storage for frame in parsed.frames]

    def decode(self, frame: bytes) -> Samples | None:
        """160 samples. FFmpeg knows no comfort noise: a pause the sender describes by it is played as silence."""
        if frame[0] >> 3 & 0x0F >= len(AMR_BITRATES):
            return np.zeros(BLOCK_SAMPLES, np.int16)
        try:
            decoded = self._decoder.decode(av.Packet(frame))
        except av.error.FFmpegError:
            return None
        if not decoded or decoded[0].samples != BLOCK_SAMPLES:
            return None
        return np.asarray(decoded[0].to_ndarray()[0].clip(-1, 1) * FULL_SCALE, dtype=np.int16)


class G711:
    """Logarithmic PCM: an octet a sample."""

    frame_samples = PCM_FRAME_SAMPLES

    def __init__(self, law: str) -> None:
        self._encoder = _context(law, "w")
        self._decoder = _context(law, "r")

    def encode(self, samples: Samples) -> bytes:
        """160 octets."""
        return b"".join(bytes(packet) for packet in self._encoder.encode(_frame(samples)))

    def frames(self, payload: bytes) -> list[bytes]:
        """Pieces of 10 ms; what does not fill one is dropped."""
        whole = len(payload) - len(payload) % PCM_FRAME_SAMPLES
        return [payload[at : at + PCM_FRAME_SAMPLES] for at in range(0, whole, PCM_FRAME_SAMPLES)]

    def decode(self, frame: bytes) -> Samples | None:
        """80 samples."""
        decoded = self._decoder.decode(av.Packet(frame))
        return decoded[0].to_ndarray()[0].astype(np.int16, copy=False) if decoded else None


def _context(name: str, mode: str, bitrate: int = 0) -> av.AudioCodecContext:
    context = av.CodecContext.create(name, "w" if mode == "w" else "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = SAMPLE_RATE
    context.layout = "mono"
    if mode == "w":
        context.format = "s16"
    if bitrate:
        context.bit_rate = bitrate
    return context


def _frame(samples: Samples) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    return frame
