"""RTCP datagrams: compounds (RFC 3550 section 6.1), full or of reduced size (RFC 5506). Import packet types from here.

`parse_compound` reads what it knows and keeps the rest as `UnknownPacket`, so that one odd packet does not cost the
request beside it; only framing that does not add up is an error. Every packet type has `.serialise()`.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from protocols.rtp import feedback, reports
from protocols.rtp.feedback import Fir, Nack, Pli, Remb, Tmmbn, Tmmbr
from protocols.rtp.reports import (
    CNAME,
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    SenderReport,
    SourceDescription,
    frame,
)

__all__ = [
    "CNAME",
    "Fir",
    "Goodbye",
    "Nack",
    "Pli",
    "ReceiverReport",
    "Remb",
    "ReportBlock",
    "RtcpError",
    "RtcpPacket",
    "SenderReport",
    "SourceDescription",
    "Tmmbn",
    "Tmmbr",
    "UnknownPacket",
    "compound",
    "middle_ntp",
    "ntp_time",
    "parse_compound",
    "unix_time",
]

MAX_PACKETS = 64
_HEADER = struct.Struct("!BBH")
_NTP_EPOCH_OFFSET = 2_208_988_800
"""Seconds from 1900 (NTP) to 1970 (Unix)."""


class RtcpPacket(Protocol):
    """What every packet type can do."""

    def serialise(self) -> bytes:
        """The packet with its header, a multiple of four octets."""
        ...


@dataclass(frozen=True, slots=True)
class UnknownPacket:
    """A packet of a type unknown here, or whose inside makes no sense, as it came (padding removed)."""

    type: int
    count: int
    body: bytes

    def serialise(self) -> bytes:
        """The packet with its header."""
        return frame(self.type, self.count, self.body)


def compound(packets: Iterable[RtcpPacket]) -> bytes:
    """One datagram of several packets; order is the caller's (RFC 3550: a report first, then SDES)."""
    return b"".join(packet.serialise() for packet in packets)


def parse_compound(data: bytes) -> tuple[RtcpPacket, ...]:
    """The packets of a datagram; raises RtcpError if the headers do not fit it."""
    packets: list[RtcpPacket] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data) or len(packets) == MAX_PACKETS:
            raise RtcpError("RTCP packet cut off, or too many of them")
        first, packet_type, words = _HEADER.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            raise RtcpError("not RTCP, or cut off")
        body = data[at + 4 : end]
        if first & 0x20:
            if not body or not 0 < body[-1] <= len(body) or body[-1] % 4:
                raise RtcpError("padding longer than its packet, or no whole words")
            body = body[: -body[-1]]
        packets.append(_parse_packet(packet_type, first & 0x1F, body))
        at = end
    if not packets:
        raise RtcpError("empty datagram")
    return tuple(packets)


def ntp_time(unix: float) -> int:
    """The 64-bit NTP timestamp of a Unix time in seconds."""
    return int((unix + _NTP_EPOCH_OFFSET) * (1 << 32)) & 0xFFFFFFFF_FFFFFFFF


def unix_time(ntp: int) -> float:
    """Unix seconds of a 64-bit NTP timestamp."""
    return ntp / (1 << 32) - _NTP_EPOCH_OFFSET


def middle_ntp(ntp: int) -> int:
    """The middle 32 bits, as report blocks carry them: 1/65536 s."""
    return ntp >> 16 & 0xFFFFFFFF


def _parse_packet(packet_type: int, count: int, body: bytes) -> RtcpPacket:
    read = reports.READERS.get(packet_type) or feedback.READERS.get((packet_type, count))
    if read is not None:
        try:
            return read(count, body)
        except (RtcpError, struct.error, IndexError):
            pass  # A body that makes no sense is kept unread, like a packet of unknown type.
    return UnknownPacket(packet_type, count, body)
