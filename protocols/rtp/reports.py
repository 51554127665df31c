"""RTCP reports: SR, RR, SDES and BYE (RFC 3550 section 6.4 to 6.6), and the header all RTCP packets share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct

SENDER_REPORT, RECEIVER_REPORT, SOURCE_DESCRIPTION, GOODBYE = 200, 201, 202, 203
CNAME = 1
MAX_ENTRIES = 31

_HEADER = Struct("!BBH")
_SENDER_INFO = Struct("!QIII")
_BLOCK = Struct("!IIIIII")
_WORD = Struct("!I")


class RtcpError(ValueError):
    """The datagram is no RTCP compound, or a value has no room in a packet."""


def frame(packet_type: int, count: int, body: bytes) -> bytes:
    """Header and body; `count` is the report count, source count or feedback format."""
    if not 0 <= count <= MAX_ENTRIES or len(body) % 4 or len(body) > 4 * 0xFFFF:
        raise RtcpError("too many entries, or not a whole number of words")
    return _HEADER.pack(0x80 | count, packet_type, len(body) // 4) + body


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """Reception of one source as its receiver sees it (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction_lost: int = 0
    """Lost since the last report, in 1/256."""
    cumulative_lost: int = 0
    """Signed: duplicates can make it negative."""
    highest_sequence: int = 0
    """Extended: wraps in the upper 16 bits."""
    jitter: int = 0
    """In timestamp units."""
    last_report: int = 0
    """Middle 32 bits of the last sender report's NTP time, 0 if there was none."""
    delay: int = 0
    """Since that report, in 1/65536 s."""

    def octets(self) -> bytes:
        """The 24 octets of the block; the loss is clamped to its 24 bits."""
        lost = max(-0x800000, min(0x7FFFFF, self.cumulative_lost)) & 0xFFFFFF
        return _BLOCK.pack(
            self.ssrc,
            self.fraction_lost << 24 | lost,
            self.highest_sequence & 0xFFFFFFFF,
            min(self.jitter, 0xFFFFFFFF),
            self.last_report,
            self.delay,
        )


@dataclass(frozen=True, slots=True)
class SenderReport:
    """What a sender has sent, and which wall-clock time its RTP timestamp stands for."""

    ssrc: int
    ntp: int
    """64-bit NTP timestamp."""
    rtp_timestamp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()

    def serialise(self) -> bytes:
        """The packet with its header."""
        info = _SENDER_INFO.pack(self.ntp, self.rtp_timestamp, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)
        body = _WORD.pack(self.ssrc) + info + _blocks(self.reports)
        return frame(SENDER_REPORT, len(self.reports), body)


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """Reports of one that sends nothing itself; empty it says no more than "I am here"."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()

    def serialise(self) -> bytes:
        """The packet with its header."""
        return frame(RECEIVER_REPORT, len(self.reports), _WORD.pack(self.ssrc) + _blocks(self.reports))


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """SDES: for each SSRC its items, (type, text); type 1 is the CNAME."""

    chunks: tuple[tuple[int, tuple[tuple[int, bytes], ...]], ...]

    def serialise(self) -> bytes:
        """The packet with its header."""
        body = b"".join(_chunk(ssrc, items) for ssrc, items in self.chunks)
        return frame(SOURCE_DESCRIPTION, len(self.chunks), body)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """BYE: these sources stop."""

    ssrcs: tuple[int, ...]
    reason: bytes = b""

    def serialise(self) -> bytes:
        """The packet with its header."""
        reason = bytes((len(self.reason),)) + self.reason if self.reason else b""
        words = b"".join(map(_WORD.pack, self.ssrcs))
        return frame(GOODBYE, len(self.ssrcs), words + reason + bytes(-len(reason) % 4))


def _sender_report(count: int, body: bytes) -> SenderReport:
    (ssrc,) = _WORD.unpack_from(body)
    ntp, rtp_timestamp, packets, octets = _SENDER_INFO.unpack_from(body, 4)
    return SenderReport(ssrc, ntp, rtp_timestamp, packets, octets, _report_blocks(body, 24, count))


def _receiver_report(count: int, body: bytes) -> ReceiverReport:
    (ssrc,) = _WORD.unpack_from(body)
    return ReceiverReport(ssrc, _report_blocks(body, 4, count))


def _report_blocks(body: bytes, at: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for offset in range(at, at + count * _BLOCK.size, _BLOCK.size):
        ssrc, loss, highest, jitter, last_report, delay = _BLOCK.unpack_from(body, offset)
        cumulative = (loss & 0xFFFFFF ^ 0x800000) - 0x800000
        blocks.append(ReportBlock(ssrc, loss >> 24, cumulative, highest, jitter, last_report, delay))
    return tuple(blocks)


def _source_description(count: int, body: bytes) -> SourceDescription:
    chunks = []
    at = 0
    for _ in range(count):
        (ssrc,) = _WORD.unpack_from(body, at)
        at += 4
        items = []
        while kind := body[at]:
            text = body[at + 2 : at + 2 + body[at + 1]]
            if len(text) != body[at + 1]:
                raise RtcpError("SDES item cut off")
            items.append((kind, text))
            at += 2 + len(text)
        at += 4 - at % 4
        chunks.append((ssrc, tuple(items)))
    return SourceDescription(tuple(chunks))


def _goodbye(count: int, body: bytes) -> Goodbye:
    ssrcs = tuple(_WORD.unpack_from(body, 4 * index)[0] for index in range(count))
    rest = body[4 * count :]
    reason = rest[1 : 1 + rest[0]] if rest else b""
    if rest and len(reason) != rest[0]:
        raise RtcpError("BYE reason cut off")
    return Goodbye(ssrcs, reason)


def _chunk(ssrc: int, items: Iterable[tuple[int, bytes]]) -> bytes:
    texts = []
    for kind, text in items:
        if not 0 < kind < 256 or len(text) > 255:
            raise RtcpError("SDES item out of range")
        texts.append(bytes((kind, len(text))) + text)
    body = b"".join(texts)
    return _WORD.pack(ssrc) + body + bytes(4 - len(body) % 4)


def _blocks(reports: Iterable[ReportBlock]) -> bytes:
    return b"".join(report.octets() for report in reports)


READERS: Mapping[int, Callable[[int, bytes], SenderReport | ReceiverReport | SourceDescription | Goodbye]] = {
    SENDER_REPORT: _sender_report,
    RECEIVER_REPORT: _receiver_report,
    SOURCE_DESCRIPTION: _source_description,
    GOODBYE: _goodbye,
}
"""What reads the body of each packet type, given its count and body."""
