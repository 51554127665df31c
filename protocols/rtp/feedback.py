"""RTCP feedback: NACK and PLI (RFC 4585), FIR, TMMBR, TMMBN (RFC 5104), REMB (draft-alvestrand-rmcat-remb)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct

from protocols.rtp.reports import RtcpError, frame

TRANSPORT_FEEDBACK, PAYLOAD_FEEDBACK = 205, 206
_NACK, _TMMBR, _TMMBN = 1, 3, 4
_PLI, _FIR, _APPLICATION_LAYER = 1, 4, 15
_REMB_NAME = b"REMB"
MAX_NACKED = 1024

_SSRCS = Struct("!II")
_PAIR = Struct("!HH")
_FIR_ENTRY = Struct("!IB3x")
_WORD = Struct("!I")


@dataclass(frozen=True, slots=True)
class Nack:
    """Please send these packets again (sequence numbers on the wire)."""

    sender: int
    media: int
    sequences: tuple[int, ...]

    def serialise(self) -> bytes:
        """The packet; numbers within 17 of each other share an entry."""
        pairs: list[tuple[int, int]] = []
        for sequence in self.sequences:
            if pairs and 0 < (offset := (sequence - pairs[-1][0]) & 0xFFFF) <= 16:
                pairs[-1] = (pairs[-1][0], pairs[-1][1] | 1 << (offset - 1))
            elif not pairs or sequence != pairs[-1][0]:
                pairs.append((sequence, 0))
        body = b"".join(_PAIR.pack(*pair) for pair in pairs)
        return frame(TRANSPORT_FEEDBACK, _NACK, _SSRCS.pack(self.sender, self.media) + body)


@dataclass(frozen=True, slots=True)
class Pli:
    """Picture loss: please send a keyframe."""

    sender: int
    media: int

    def serialise(self) -> bytes:
        """The packet with its header."""
        return frame(PAYLOAD_FEEDBACK, _PLI, _SSRCS.pack(self.sender, self.media))


@dataclass(frozen=True, slots=True)
class Fir:
    """Full intra request: (ssrc, request number) each; the number grows per new request, not per repetition."""

    sender: int
    entries: tuple[tuple[int, int], ...]

    def serialise(self) -> bytes:
        """The packet; the media SSRC of the header is 0 (RFC 5104 section 4.3.1.2)."""
        body = b"".join(_FIR_ENTRY.pack(ssrc, number & 0xFF) for ssrc, number in self.entries)
        return frame(PAYLOAD_FEEDBACK, _FIR, _SSRCS.pack(self.sender, 0) + body)


@dataclass(frozen=True, slots=True)
class Remb:
    """The receiver's estimate of what it can take, in bit/s, over these sources."""

    sender: int
    bitrate: int
    ssrcs: tuple[int, ...]

    def serialise(self) -> bytes:
        """The packet; the rate is rounded down to 18 significant bits."""
        exponent = max(0, self.bitrate.bit_length() - 18)
        if exponent > 63 or len(self.ssrcs) > 255:
            raise RtcpError("bit rate or number of sources out of range")
        rate = len(self.ssrcs) << 24 | exponent << 18 | self.bitrate >> exponent
        body = _REMB_NAME + _WORD.pack(rate) + b"".join(map(_WORD.pack, self.ssrcs))
        return frame(PAYLOAD_FEEDBACK, _APPLICATION_LAYER, _SSRCS.pack(self.sender, 0) + body)


RateEntries = tuple[tuple[int, int, int], ...]
"""(ssrc, bit/s, overhead in octets a packet)."""


@dataclass(frozen=True, slots=True)
class Tmmbr:
    """Request: send at most this much."""

    sender: int
    entries: RateEntries

    def serialise(self) -> bytes:
        """The packet; rates are rounded down to 17 significant bits."""
        return _rates(_TMMBR, self.sender, self.entries)


@dataclass(frozen=True, slots=True)
class Tmmbn:
    """Notification: this bound holds now, owned by the SSRC of the entry."""

    sender: int
    entries: RateEntries = ()

    def serialise(self) -> bytes:
        """The packet; rates are rounded down to 17 significant bits."""
        return _rates(_TMMBN, self.sender, self.entries)


def _rates(fmt: int, sender: int, entries: Iterable[tuple[int, int, int]]) -> bytes:
    body = b""
    for ssrc, bitrate, overhead in entries:
        exponent = max(0, bitrate.bit_length() - 17)
        if exponent > 63 or not 0 <= overhead < 512:
            raise RtcpError("bit rate or overhead out of range")
        body += _SSRCS.pack(ssrc, exponent << 26 | (bitrate >> exponent) << 9 | overhead)
    return frame(TRANSPORT_FEEDBACK, fmt, _SSRCS.pack(sender, 0) + body)


def _nack(_fmt: int, body: bytes) -> Nack:
    sender, media = _SSRCS.unpack_from(body)
    sequences: list[int] = []
    for first, mask in _PAIR.iter_unpack(body[8:]):
        sequences.append(first)
        sequences += ((first + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1)
        if len(sequences) > MAX_NACKED:
            raise RtcpError("NACK for too many packets")
    return Nack(sender, media, tuple(dict.fromkeys(sequences)))  # each once, however often it is named


def _pli(_fmt: int, body: bytes) -> Pli:
    return Pli(*_SSRCS.unpack_from(body))


def _fir(_fmt: int, body: bytes) -> Fir:
    sender, _media = _SSRCS.unpack_from(body)
    return Fir(sender, tuple(_FIR_ENTRY.iter_unpack(body[8:])))


def _remb(_fmt: int, body: bytes) -> Remb:
    sender, _media = _SSRCS.unpack_from(body)
    if body[8:12] != _REMB_NAME:
        raise RtcpError("application layer feedback of another kind")
    (rate,) = _WORD.unpack_from(body, 12)
    ssrcs = tuple(_WORD.unpack_from(body, 16 + 4 * index)[0] for index in range(rate >> 24))
    return Remb(sender, (rate & 0x3FFFF) << (rate >> 18 & 0x3F), ssrcs)


def _tmmbr(_fmt: int, body: bytes) -> Tmmbr:
    return Tmmbr(*_rate_entries(body))


def _tmmbn(_fmt: int, body: bytes) -> Tmmbn:
    return Tmmbn(*_rate_entries(body))


def _rate_entries(body: bytes) -> tuple[int, RateEntries]:
    sender, _media = _SSRCS.unpack_from(body)
    entries = tuple(
        (ssrc, (rate >> 9 & 0x1FFFF) << (rate >> 26), rate & 0x1FF) for ssrc, rate in _SSRCS.iter_unpack(body[8:])
    )
    return sender, entries


READERS: Mapping[tuple[int, int], Callable[[int, bytes], Nack | Pli | Fir | Remb | Tmmbr | Tmmbn]] = {
    (TRANSPORT_FEEDBACK, _NACK): _nack,
    (TRANSPORT_FEEDBACK, _TMMBR): _tmmbr,
    (TRANSPORT_FEEDBACK, _TMMBN): _tmmbn,
    (PAYLOAD_FEEDBACK, _PLI): _pli,
    (PAYLOAD_FEEDBACK, _FIR): _fir,
    (PAYLOAD_FEEDBACK, _APPLICATION_LAYER): _remb,
}
"""What reads the body of each packet type and feedback format."""
