"""H.264 payloads (RFC 6184): single NAL units, STAP-A and FU-A, that is packetization modes 0 and 1.

`packetize` turns one access unit into payloads, `Depacketizer` payloads into Annex B access units with losses marked.
A NAL unit here is its bytes without start code. Forwarders ask `is_keyframe` and `parameter_sets` of one payload.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from protocols.rtp.sequence import difference

IDR, SEI, SPS, PPS, AUD = 5, 6, 7, 8, 9
STAP_A, FU_A = 24, 28
START_CODE = b"\x00\x00\x00\x01"

DEFAULT_PAYLOAD_LIMIT = 1200
MAX_PAYLOAD = 65_000
MAX_ACCESS_UNIT_BYTES = 2_000_000
MAX_MISORDER = 100
"""How far back a sequence number counts as late; further back, the source has restarted (RFC 3550 A.1)."""

_FU_OVERHEAD = 2
_FU_START, _FU_END = 0x80, 0x40
_TYPE, _HEADER_BITS = 0x1F, 0xE0
_SLICES = range(1, 6)
_FIRST_SLICE_BIT = 0x80
_BEFORE_SLICES = frozenset({SEI, SPS, PPS, AUD})


class H264Error(ValueError):
    """A payload or access unit that RFC 6184 does not allow in modes 0 and 1."""


def split_annex_b(stream: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream (3- and 4-byte start codes, trailing zeros dropped)."""
    return [nal for part in stream.split(b"\x00\x00\x01")[1:] if (nal := part.rstrip(b"\x00"))]


def join_annex_b(nals: Iterable[bytes]) -> bytes:
    """An Annex B byte stream of NAL units."""
    return b"".join(part for nal in nals for part in (START_CODE, nal))


def packetize(nals: Sequence[bytes], limit: int = DEFAULT_PAYLOAD_LIMIT, mode: int = 1) -> list[bytes]:
    """The payloads of one access unit, each at most `limit` octets; the caller marks the last one.

    Mode 1 sends leading small units (parameter sets, SEI) as one STAP-A and cuts large ones into fragments of even
    size. Mode 0 has no way to cut, so a unit over the limit goes out whole and IP fragments it: let the encoder make
    small slices. Raises H264Error for an empty unit or one over MAX_PAYLOAD in mode 0.
    """
    if not all(nals):
        raise H264Error("empty NAL unit")
    if mode == 0:
        if any(len(nal) > MAX_PAYLOAD for nal in nals):
            raise H264Error("NAL unit too large for single NAL unit mode")
        return list(nals)
    leading = _leading(nals, limit)
    payloads = [_aggregate(leading)] if len(leading) > 1 else list(leading)
    for nal in nals[len(leading) :]:
        payloads += [nal] if len(nal) <= limit else fragment(nal, limit)
    return payloads


def fragment(nal: bytes, limit: int = DEFAULT_PAYLOAD_LIMIT) -> list[bytes]:
    """The FU-A payloads of one NAL unit: as few as fit, all of one size but the last, which may be shorter."""
    room = limit - _FU_OVERHEAD
    if room < 1 or len(nal) < 3:
        raise H264Error("nothing to cut, or no room for a fragment")
    body = memoryview(nal)[1:]
    size = ceil(len(body) / max(2, ceil(len(body) / room)))
    indicator, kind = nal[0] & _HEADER_BITS | FU_A, nal[0] & _TYPE
    last = (len(body) - 1) // size * size
    return [
        bytes((indicator, kind | _FU_START * (at == 0) | _FU_END * (at == last))) + body[at : at + size]
        for at in range(0, len(body), size)
    ]


def nal_types(payload: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """The types of the NAL units a payload begins or holds whole: () for a later fragment, or for nonsense."""
    if not payload:
        return ()
    kind = payload[0] & _TYPE
    if kind == FU_A:
        return (payload[1] & _TYPE,) if len(payload) > _FU_OVERHEAD and payload[1] & _FU_START else ()
    if kind == STAP_A:
        try:
            return tuple(unit[0] & _TYPE for unit in _units(payload))
        except H264Error:
            return ()
    return (kind,) if 0 < kind < STAP_A else ()


def is_keyframe(payload: bytes | bytearray | memoryview) -> bool:
    """True where decoding may begin: the payload holds an SPS or the beginning of an IDR slice."""
    types = nal_types(payload)
    return SPS in types or IDR in types


def parameter_sets(payload: bytes | bytearray | memoryview) -> tuple[bytes, ...]:
    """The SPS and PPS units in a payload, in order; () if there are none."""
    types = nal_types(payload)
    if not {SPS, PPS}.intersection(types) or payload[0] & _TYPE == FU_A:
        return ()
    units = _units(payload) if payload[0] & _TYPE == STAP_A else (payload,)
    return tuple(bytes(unit) for unit in units if unit[0] & _TYPE in {SPS, PPS})


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """What one RTP timestamp carried. `lost` packets are known to be missing just before or inside it."""

    timestamp: int
    data: bytes
    """Annex B; NAL units hit by loss are left out."""
    keyframe: bool
    complete: bool
    """False if part of its slices is missing or made no sense; parameter sets lost before them cannot be noticed."""
    lost: int = 0


class Depacketizer:
    """Access units from payloads in sequence order; reordering is the job of the buffer before it.

    A unit ends with the marker or when the timestamp changes. Late and repeated packets are ignored.
    """

    def __init__(self, max_bytes: int = MAX_ACCESS_UNIT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._expected: int | None = None
        self._timestamp: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._nals: list[bytes] = []
        self._fragments: list[bytes] = []
        self._size = 0
        self._broken = False
        self._lost = 0

    def push(self, sequence: int, timestamp: int, marker: bool, payload: bytes) -> list[AccessUnit]:
        """Take the next packet; returns the access units that are thereby finished (none, one or two)."""
        gap = 0 if self._expected is None else difference(sequence, self._expected)
        if -MAX_MISORDER <= gap < 0:
            return []
        gap = 1 if gap < 0 else gap
        unsure = gap > 0 or self._expected is None
        self._expected = (sequence + 1) & 0xFFFF
        finished = []
        if timestamp != self._timestamp:
            # Some senders set no marker; but with packets gone in between, this unit may have lost its end.
            finished = self._finish(ended=gap == 0)
            self._timestamp = timestamp
            self._broken = unsure and not _begins_picture(payload)
        elif gap:
            self._broken = True
        if gap:
            self._lost += gap
            self._drop_fragments()
        self._take(payload)
        return finished + self._finish(ended=True) if marker else finished

    def _take(self, payload: bytes) -> None:
        self._size += len(payload) + len(START_CODE)
        kind = payload[0] & _TYPE if payload else 0
        try:
            if self._size > self._max_bytes:
                raise H264Error("access unit too large")
            if kind == FU_A:
                self._take_fragment(payload)
                return
            self._drop_fragments()
            if kind == STAP_A:
                self._nals += map(bytes, _units(payload))
            elif 0 < kind < STAP_A:
                self._nals.append(payload)
            else:
                raise H264Error("payload type of no mode 0 or 1")
        except H264Error:
            self._broken = True

    def _take_fragment(self, payload: bytes) -> None:
        if len(payload) <= _FU_OVERHEAD:
            raise H264Error("empty fragment")
        header = payload[1]
        if header & _FU_START:
            self._drop_fragments()
            self._fragments.append(bytes((payload[0] & _HEADER_BITS | header & _TYPE,)))
        elif not self._fragments:
            raise H264Error("fragment without a beginning")
        self._fragments.append(payload[_FU_OVERHEAD:])
        if header & _FU_END:
            self._nals.append(b"".join(self._fragments))
            self._fragments = []

    def _drop_fragments(self) -> None:
        if self._fragments:
            self._broken = True
            self._fragments = []

    def _finish(self, *, ended: bool) -> list[AccessUnit]:
        if self._timestamp is None:
            return []
        self._drop_fragments()
        unit = AccessUnit(
            timestamp=self._timestamp,
            data=join_annex_b(self._nals),
            keyframe=any(nal[0] & _TYPE == IDR for nal in self._nals),
            complete=ended and not self._broken,
            lost=self._lost,
        )
        self._timestamp = None
        self._reset()
        return [unit]


def _leading(nals: Sequence[bytes], limit: int) -> Sequence[bytes]:
    """The units before the slices that fit into one STAP-A together."""
    size = 1
    for count, nal in enumerate(nals):
        size += 2 + len(nal)
        if nal[0] & _TYPE not in _BEFORE_SLICES or size > limit:
            return nals[:count]
    return nals


def _aggregate(nals: Sequence[bytes]) -> bytes:
    # The aggregate's NRI is the highest of its units (RFC 6184 section 5.7).
    header = STAP_A | max(nal[0] & 0x60 for nal in nals) | max(nal[0] & 0x80 for nal in nals)
    return bytes((header,)) + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals)


def _units(payload: bytes | bytearray | memoryview) -> Iterator[bytes | bytearray | memoryview]:
    """The units of a STAP-A."""
    at, size = 1, len(payload)
    while at < size:
        end = at + 2 + int.from_bytes(payload[at : at + 2], "big")
        if at + 2 >= end or end > size:
            raise H264Error("aggregation unit empty or cut off")
        yield payload[at + 2 : end]
        at = end


def _begins_picture(payload: bytes) -> bool:
    """True if nothing of this picture came before: parameter sets, or the slice of its first macroblock."""
    types = nal_types(payload)
    if not types:
        return False
    if types[0] not in _SLICES:
        return True
    at = {FU_A: 2, STAP_A: 4}.get(payload[0] & _TYPE, 1)
    return len(payload) > at and bool(payload[at] & _FIRST_SLICE_BIT)
