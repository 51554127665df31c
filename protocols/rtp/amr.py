"""AMR and AMR-WB payloads, bandwidth-efficient and octet-aligned (RFC 4867 sections 4.3 and 4.4).

Interleaving, CRCs and robust sorting are never negotiated, so they are not read here. `convert` changes the packing
of a payload without touching the speech; encoders and decoders speak the storage format (`from_storage`, `storage`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

NO_REQUEST = 15
"""The codec mode request that asks for nothing."""
NO_DATA = 15
"""The frame type of 20 ms without a frame."""
MAX_FRAMES = 50
"""One second of 20 ms frames: more in a packet is an attack, not speech."""

FRAME_BITS: dict[bool, tuple[int | None, ...]] = {
    False: (95, 103, 118, 134, 148, 159, 204, 244, 39, 43, 38, 37, None, None, None, 0),
    True: (132, 177, 253, 285, 317, 365, 397, 461, 477, 40, None, None, None, None, 0, 0),
}
"""Speech bits by frame type, narrow band (TS 26.101) and wide band (TS 26.201); None is reserved."""

STORAGE_MAGIC = b"#!AMR\n"
"""How a file of single-channel narrow-band AMR begins."""


class AmrError(ValueError):
    """The payload is not AMR in the packing that was negotiated."""


@dataclass(frozen=True, slots=True)
class AmrFrame:
    """20 ms: the frame type (mode, comfort noise or NO_DATA) and its bits, padded with zeros to whole octets."""

    type: int
    data: bytes = b""
    good: bool = True
    """False if the sender knows that the frame is damaged (Q bit)."""

    @classmethod
    def from_storage(cls, frame: bytes, *, wideband: bool = False) -> "AmrFrame":
        """A frame as encoders write it: a header octet, then the speech (RFC 4867 section 5.3)."""
        if not frame:
            raise AmrError("empty frame")
        kind = frame[0] >> 3 & 0x0F
        size = _octets(_bits(kind, wideband))
        if len(frame) != 1 + size:
            raise AmrError("frame size does not fit its type")
        return cls(kind, frame[1:], bool(frame[0] & 0x04))

    @property
    def storage(self) -> bytes:
        """The frame as decoders read it, one header octet in front."""
        return bytes((self.type << 3 | self.good << 2,)) + self.data


@dataclass(frozen=True, slots=True)
class AmrPayload:
    """The frames of a packet, oldest first, and the mode the sender asks the other side to use."""

    frames: tuple[AmrFrame, ...]
    mode_request: int = NO_REQUEST


def parse(payload: bytes, *, octet_align: bool, wideband: bool = False) -> AmrPayload:
    """The frames in a payload; raises AmrError. Bits after the last frame are ignored."""
    bits = _BitReader(payload)
    mode_request = bits.take(4)
    if octet_align:
        bits.take(4)
    entries: list[tuple[int, bool]] = []
    more = True
    while more:
        if len(entries) == MAX_FRAMES:
            raise AmrError("too many frames")
        more = bool(bits.take(1))
        kind, good = bits.take(4), bool(bits.take(1))
        entries.append((kind, good))
        if octet_align:
            bits.take(2)
    return AmrPayload(tuple(_read_frame(bits, *entry, octet_align, wideband) for entry in entries), mode_request)


def build(
    frames: Sequence[AmrFrame],
    *,
    octet_align: bool,
    wideband: bool = False,
    mode_request: int = NO_REQUEST,
) -> bytes:
    """The payload for these frames, oldest first; raises AmrError if there are none or too many."""
    if not 0 < len(frames) <= MAX_FRAMES:
        raise AmrError("a payload holds 1 to 50 frames")
    bits = _BitWriter()
    bits.put(mode_request, 4)
    if octet_align:
        bits.put(0, 4)
    for index, frame in enumerate(frames):
        bits.put(index < len(frames) - 1, 1)
        bits.put(frame.type, 4)
        bits.put(frame.good, 1)
        if octet_align:
            bits.put(0, 2)
    for frame in frames:
        size = _bits(frame.type, wideband)
        if len(frame.data) != _octets(size):
            raise AmrError("frame size does not fit its type")
        speech = int.from_bytes(frame.data, "big") >> (-size % 8)
        bits.put(speech, size)
        if octet_align:
            bits.put(0, -size % 8)
    return bits.octets()


def convert(payload: bytes, from_octet_align: bool, to_octet_align: bool, *, wideband: bool = False) -> bytes:
    """The payload in the other packing; raises AmrError. Equal packings return it as it is, unread."""
    if from_octet_align == to_octet_align:
        return payload
    parsed = parse(payload, octet_align=from_octet_align, wideband=wideband)
    return build(parsed.frames, octet_align=to_octet_align, wideband=wideband, mode_request=parsed.mode_request)


def read_storage(data: bytes) -> tuple[AmrFrame, ...]:
    """The frames of a narrow-band AMR file (RFC 4867 section 5); raises AmrError."""
    if not data.startswith(STORAGE_MAGIC):
        raise AmrError("no AMR file")
    frames, at = [], len(STORAGE_MAGIC)
    while at < len(data):
        size = 1 + _octets(_bits(data[at] >> 3 & 0x0F, False))
        frames.append(AmrFrame.from_storage(data[at : at + size]))
        at += size
    return tuple(frames)


class _BitReader:
    """Bits from the most significant on."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise AmrError("payload cut off")
        return self._value >> self._left & ((1 << count) - 1)


class _BitWriter:
    """Bits gathered into octets, the last one padded with zeros."""

    def __init__(self) -> None:
        self._value = self._count = 0

    def put(self, value: int, count: int) -> None:
        self._value = self._value << count | value
        self._count += count

    def octets(self) -> bytes:
        size = _octets(self._count)
        return (self._value << (-self._count % 8)).to_bytes(size, "big")


def _read_frame(bits: _BitReader, kind: int, good: bool, octet_align: bool, wideband: bool) -> AmrFrame:
    size = _bits(kind, wideband)
    padding = -size % 8
    data = (bits.take(size) << padding).to_bytes(_octets(size), "big")
    if octet_align:
        bits.take(padding)
    return AmrFrame(kind, data, good)


def _bits(kind: int, wideband: bool) -> int:
    size = FRAME_BITS[wideband][kind]
    if size is None:
        raise AmrError(f"reserved frame type {kind}")
    return size


def _octets(bits: int) -> int:
    return (bits + 7) // 8
