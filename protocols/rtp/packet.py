"""RTP packets (RFC 3550 section 5.1, header extensions of RFC 8285 kept opaque).

`RtpPacket` is the typed value off the hot path. A forwarder needs less: `peek_header` reads the five
numbers it decides by, `rewrite_header` copies a packet under new ones, and neither touches the payload.
"""

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

VERSION = 2
HEADER_BYTES = 12
MAX_CSRCS = 15

_HEADER = Struct("!BBHII")
_EXTENSION = Struct("!HH")
_WORD = Struct("!I")

Buffer = bytes | bytearray | memoryview


class RtpError(ValueError):
    """The datagram is no RTP packet."""


class RtpHeader(NamedTuple):
    """The fixed header's numbers as they stand on the wire."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int


@dataclass(frozen=True, slots=True)
class Extension:
    """A header extension: its profile word (0xBEDE for RFC 8285) and its data, a multiple of 4 octets."""

    profile: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet; `padding` counts the octets after the payload, the last of which holds the count."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes = b""
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: Extension | None = None
    padding: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> "RtpPacket":
        """The packet in a datagram; raises RtpError when the datagram is none."""
        header = peek_header(data)
        start, end = payload_span(data)
        count = data[0] & 0x0F
        csrcs = tuple(_WORD.unpack_from(data, HEADER_BYTES + 4 * i)[0] for i in range(count))
        extension = None
        if data[0] & 0x10:
            at = HEADER_BYTES + 4 * count
            extension = Extension(_EXTENSION.unpack_from(data, at)[0], bytes(data[at + 4 : start]))
        return cls(
            payload_type=header.payload_type,
            sequence=header.sequence,
            timestamp=header.timestamp,
            ssrc=header.ssrc,
            payload=bytes(data[start:end]),
            marker=header.marker,
            csrcs=csrcs,
            extension=extension,
            padding=len(data) - end,
        )

    def serialise(self) -> bytes:
        """The datagram; raises RtpError for values the header has no room for."""
        extension = self.extension
        if not (0 <= self.payload_type < 128 and len(self.csrcs) <= MAX_CSRCS and 0 <= self.padding < 256):
            raise RtpError("payload type, CSRC count or padding out of range")
        if extension is not None and len(extension.data) % 4:
            raise RtpError("extension is not a whole number of words")
        first = VERSION << 6 | bool(self.padding) << 5 | (extension is not None) << 4 | len(self.csrcs)
        second = self.marker << 7 | self.payload_type
        parts = [
            _HEADER.pack(first, second, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc & 0xFFFFFFFF),
            *(_WORD.pack(csrc) for csrc in self.csrcs),
        ]
        if extension is not None:
            parts += [_EXTENSION.pack(extension.profile, len(extension.data) // 4), extension.data]
        parts.append(self.payload)
        if self.padding:
            parts.append(bytes(self.padding - 1) + bytes((self.padding,)))
        return b"".join(parts)


def peek_header(data: Buffer) -> RtpHeader:
    """The fixed header without looking further; raises RtpError for a wrong version or a short datagram."""
    if len(data) < HEADER_BYTES:
        raise RtpError("shorter than an RTP header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != VERSION:
        raise RtpError("not RTP version 2")
    return RtpHeader(second & 0x7F, second >= 0x80, sequence, timestamp, ssrc)


def payload_span(data: Buffer) -> tuple[int, int]:
    """Start and end of the payload within the packet, CSRCs, extension and padding left out."""
    size = len(data)
    if size < HEADER_BYTES:
        raise RtpError("shorter than an RTP header")
    first = data[0]
    start, end = HEADER_BYTES + 4 * (first & 0x0F), size
    if first & 0x10:
        if start + 4 > size:
            raise RtpError("header extension cut off")
        start += 4 + 4 * _EXTENSION.unpack_from(data, start)[1]
    if first & 0x20:
        padding = data[-1]
        if not padding:
            raise RtpError("padding of no octets")
        end -= padding
    if start > end:
        raise RtpError("header, extension and padding exceed the packet")
    return start, end


def payload_of(data: Buffer) -> Buffer:
    """The payload as a slice of the datagram (no copy when given a memoryview)."""
    start, end = payload_span(data)
    return data[start:end]


def rewrite_header(
    data: Buffer, *, payload_type: int, sequence: int, timestamp: int, ssrc: int, marker: bool | None = None
) -> bytes:
    """A copy of the packet under other numbers (taken modulo their width); the marker stays unless given."""
    second = data[1] & 0x80 if marker is None else marker << 7
    header = _HEADER.pack(data[0], second | payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc & 0xFFFFFFFF)
    return header + data[HEADER_BYTES:]
