"""Sequence numbers and timestamps from the source to each viewer (RFC 3550 section 5.1, RFC 7667 section 3.7).

Two steps. `SourceTimeline` puts the packets of whatever source a group has on one endless line, so that a source
that restarts or is replaced goes on where the old one stopped. `LegNumbers` maps that line to one viewer's numbers:
they follow source order, a packet missing upstream keeps its number (the viewer sees the gap and may ask), and only
packets left out on purpose close the gap. A late packet takes the number that was reserved for it.
"""

from collections import deque
from typing import NamedTuple

from protocols.rtp.packet import RtpHeader
from protocols.rtp.sequence import difference, extend

HISTORY = 1024
"""Packets remembered: how late one may come, how far back a NACK may reach."""
HISTORY_SECONDS = 2.0
"""Of them, by their timestamps, older ones are let go, but for what the keyframe cache keeps longer."""
MAX_DROPOUT = 3000
"""A jump in sequence numbers beyond this is a restart (RFC 3550 A.1)."""
RETIRED_SSRC_SECONDS = 2.0
"""How long stragglers of the SSRC before are told apart from a source that returns to it."""
_MAX_SHIFTS = 32


class Placed(NamedTuple):
    """Where a packet stands on the group's line: endless sequence number and timestamp."""

    sequence: int
    timestamp: int


class SourceTimeline:
    """The group's line for one medium, whoever the source is."""

    def __init__(self, clock_rate: int) -> None:
        self.clock_rate = clock_rate
        self.ssrc: int | None = None
        self.highest = -1
        """Highest sequence number given out, in the group's numbering."""
        self.timestamp = 0
        self.step = 0
        """How far the packet placed last was beyond the highest before it, by its source's numbers."""
        self.arrived_at = 0.0
        self._raw_highest = 0
        self._raw_timestamp = 0
        self._shifts: deque[tuple[int, int]] = deque(maxlen=_MAX_SHIFTS)
        self.timestamp_offset = 0
        self._retired: tuple[int, float] | None = None

    def place(self, header: RtpHeader, now: float) -> Placed | None:
        """The packet's place; None when it is too late to have one."""
        if header.ssrc != self.ssrc:
            if self._retired is not None and self._retired[0] == header.ssrc and now < self._retired[1]:
                return None
            self._restart(header, now)
        step = difference(header.sequence, self._raw_highest)
        if abs(step) > MAX_DROPOUT:
            self._restart(header, now)
            step = 0
        self.step = step
        raw = self._raw_highest + step
        if step <= -HISTORY:
            return None
        sequence = raw + self._shift(raw)
        if sequence < 0:
            return None
        raw_timestamp = extend(header.timestamp, self._raw_timestamp, 32)
        placed = Placed(sequence, raw_timestamp + self.timestamp_offset)
        if step >= 0:
            self._raw_highest, self._raw_timestamp = raw, raw_timestamp
            self.highest, self.timestamp, self.arrived_at = sequence, placed.timestamp, now
        return placed

    def insert_before(self, sequence: int, count: int) -> None:
        """Make room for `count` packets of our own before the newest packet, which stood at `sequence`."""
        self._shifts.append((self._raw_highest, self._shifts[-1][1] + count))
        self.highest = sequence + count

    def source_replaced(self) -> None:
        """Another leg is the source now: any SSRC is new, even the one just retired."""
        self.ssrc = None
        self._retired = None

    def _restart(self, header: RtpHeader, now: float) -> None:
        if self.ssrc is not None and self.ssrc != header.ssrc:
            self._retired = (self.ssrc, now + RETIRED_SSRC_SECONDS)
        elapsed = max(1, round((now - self.arrived_at) * self.clock_rate)) if self.highest >= 0 else 0
        self.ssrc = header.ssrc
        self._raw_highest = header.sequence
        self._raw_timestamp = header.timestamp
        self._shifts.clear()
        self._shifts.append((header.sequence - HISTORY, self.highest + 1 - header.sequence))
        self.timestamp_offset = self.timestamp + elapsed - header.timestamp

    def _shift(self, raw: int) -> int:
        for start, shift in reversed(self._shifts):
            if raw >= start:
                return shift
        return self._shifts[0][1]


class LegNumbers:
    """One viewer's numbers. Arithmetic instead of a table: shifts are rare, so a leg costs a few hundred bytes."""

    __slots__ = ("_first", "_floor", "_shifts", "highest", "timestamp_offset")

    def __init__(self, first: int, timestamp_offset: int) -> None:
        self.timestamp_offset = timestamp_offset
        self.highest: int | None = None
        """Highest group sequence number this viewer was given a number for."""
        self._first = first
        self._floor = 0
        self._shifts: deque[tuple[int, int]] = deque(maxlen=_MAX_SHIFTS)

    def resume(self, sequence: int) -> None:
        """What follows starts at this group number, right after the last one sent; all before is left out."""
        last = self._first - 1 if self.highest is None else self.number(self.highest)
        self._floor = sequence
        self.highest = sequence - 1
        self._shifts.clear()
        self._shifts.append((sequence - 1, last + 1 - sequence))

    def assign(self, sequence: int) -> int | None:
        """The viewer's (endless) number for this packet; None when it comes too late to have one."""
        if self.highest is None:
            self.resume(sequence)
        if self.highest is None or sequence < self._floor or sequence <= self.highest - HISTORY:
            return None
        if sequence > self.highest:
            self.highest = sequence
            return sequence + self._shifts[-1][1]
        return self.number(sequence) if sequence >= self._shifts[0][0] else None

    def skip(self, sequence: int) -> None:
        """Leave the packet out on purpose: what comes after closes the gap. A late one changes nothing."""
        if self.highest is None or sequence > self.highest:
            self.assign(sequence)
            self._shifts.append((sequence + 1, self._shifts[-1][1] - 1))

    def number(self, sequence: int) -> int:
        """The viewer's number of a packet already placed."""
        for start, shift in reversed(self._shifts):
            if sequence >= start:
                return sequence + shift
        return sequence + self._shifts[0][1]

    def group_sequence(self, number: int) -> int | None:
        """The group number behind a viewer's 16-bit number, None beyond the last `HISTORY` (for NACK)."""
        if self.highest is None:
            return None
        newest = self.number(self.highest)
        endless = extend(number, newest)
        if endless > newest:
            return None
        for start, shift in reversed(self._shifts):
            sequence = endless - shift
            if sequence >= start:
                break
        else:
            return None
        return sequence if sequence >= max(self._floor, self.highest - HISTORY + 1) else None
