"""From packets as they come to pictures that can be decoded: reorders, asks again, gives up, waits for a keyframe.

A packet missing in the middle holds the picture back for at most LATE_LIMIT while it is asked for again (NACK, RFC
4585). If it stays away, nothing is shown until the next keyframe, which is asked for at once (PLI, then FIR as well:
some peers know only that one): a picture with holes is worse than a still one. Without loss nothing is ever delayed.
"""

from dataclasses import dataclass, field
from typing import Final

from protocols.rtp.h264 import AccessUnit, Depacketizer
from protocols.rtp.packet import RtpPacket
from protocols.rtp.sequence import TIMESTAMP_BITS, Unwrapper

LATE_LIMIT: Final = 0.150
"""Seconds a gap may stay open: time for two more requests over a mobile network's round trip."""
NACK_AFTER: Final = 0.008
"""Most reordering heals within this time, without a request."""
NACK_EVERY: Final = 0.045
REPLAY_PATIENCE: Final = 0.250
"""A relay replays the current group of pictures to a newcomer: it gets this long before we ask for a keyframe."""
KEYFRAME_EVERY: Final = 1.0
FIR_AFTER: Final = 3
"""Unanswered PLIs after which FIRs (RFC 5104) go along with them."""
MAX_STORED: Final = 1024
MAX_JUMP: Final = 3000
"""A sequence number further away than this, from the newest or from the one waited for, is a stream that started over
(RFC 3550 A.1, MAX_DROPOUT)."""
MAX_NACKS: Final = 64
SHORTEST_INTERVAL: Final = 90_000 // 61
"""Between pictures at 60 Hz; anything less is no frame rate."""


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """An intact access unit whose references are intact too. `timestamp` is the extended 90 kHz RTP time."""

    data: bytes
    timestamp: int
    keyframe: bool
    arrived_at: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """What should be told to the sender now: missing sequence numbers (16 bit), and whether a keyframe is needed."""

    nack: tuple[int, ...] = ()
    pli: bool = False
    fir: bool = False


@dataclass(slots=True)
class BufferCounts:
    """How reception went, in packets and pictures."""

    packets: int = 0
    late: int = 0
    duplicate: int = 0
    reordered: int = 0
    given_up: int = 0
    frames_lost: int = 0
    before_first_keyframe: int = 0


@dataclass(slots=True)
class _Gap:
    since: float
    next_nack: float


@dataclass(slots=True)
class _KeyframeWish:
    """When the next request is due, and how many went unanswered."""

    due: float | None = None
    asked: int = 0

    def arise(self, at: float) -> None:
        if self.due is None:
            self.due = at

    def hasten(self, at: float) -> None:
        if self.due is not None:
            self.due = min(self.due, at)

    def fulfilled(self) -> None:
        self.due, self.asked = None, 0


@dataclass(slots=True)
class VideoBuffer:
    """One H.264 stream of one SSRC. Time is passed in; `next_timer` says when `poll` has something to do."""

    counts: BufferCounts = field(default_factory=BufferCounts)
    _depacketizer: Depacketizer = field(default_factory=Depacketizer)
    _sequences: Unwrapper = field(default_factory=Unwrapper)
    _timestamps: Unwrapper = field(default_factory=lambda: Unwrapper(TIMESTAMP_BITS))
    _stored: dict[int, tuple[RtpPacket, float]] = field(default_factory=dict)
    _gaps: dict[int, _Gap] = field(default_factory=dict)
    _next: int | None = None
    _started: bool = False
    _waiting: bool = True
    _last_timestamp: int | None = None
    _interval: int = 0
    _wish: _KeyframeWish = field(default_factory=_KeyframeWish)

    def put(self, packet: RtpPacket, now: float) -> list[CodedPicture]:
        """Take a packet; returns the pictures that are now ready, in order."""
        self.counts.packets += 1
        highest = self._sequences.highest
        sequence = self._sequences.unwrap(packet.sequence)
        if self._next is None or highest is None:
            self._next = sequence
            self._wish.arise(now + REPLAY_PATIENCE)
        elif abs(sequence - highest) > MAX_JUMP or sequence - self._next > MAX_JUMP:
            self._start_over(packet.sequence)
            sequence = packet.sequence
        elif sequence < self._next:
            self.counts.late += 1
            return []
        elif sequence < highest:
            self.counts.reordered += 1
        if sequence in self._stored:
            self.counts.duplicate += 1
            return []
        self._stored[sequence] = (packet, now)
        self._gaps.pop(sequence, None)
        pictures = self._drain()
        if self._stored and sequence == max(self._stored):
            start = sequence if highest is None else max(highest + 1, self._next)
            for missing in range(start, sequence):
                self._gaps[missing] = _Gap(now, now + NACK_AFTER)
        return pictures + self.poll(now)

    def poll(self, now: float) -> list[CodedPicture]:
        """Give up what has been missing for too long; returns the pictures that this sets free."""
        pictures: list[CodedPicture] = []
        while self._stored and self._next is not None:
            gap = self._gaps.get(self._next)
            if gap is not None and now < gap.since + LATE_LIMIT and len(self._stored) < MAX_STORED:
                break
            following = min(self._stored)
            self.counts.given_up += following - self._next
            for missing in range(self._next, following):
                self._gaps.pop(missing, None)
            self._next = following
            pictures += self._drain()
        return pictures

    def feedback(self, now: float) -> Feedback:
        """The requests due now; each is handed out once."""
        due = [sequence for sequence, gap in self._gaps.items() if gap.next_nack <= now][:MAX_NACKS]
        for sequence in due:
            self._gaps[sequence].next_nack = now + NACK_EVERY
        keyframe = self._wish.due is not None and self._wish.due <= now
        if keyframe:
            self._wish.asked += 1
            self._wish.due = now + KEYFRAME_EVERY
        return Feedback(
            tuple(sequence & 0xFFFF for sequence in due), keyframe, keyframe and self._wish.asked > FIR_AFTER
        )

    def want_keyframe(self, now: float) -> None:
        """The decoder is stuck: nothing more is handed out before the next keyframe, which is asked for."""
        self._waiting = True
        self._wish.arise(now)

    def next_timer(self) -> float | None:
        """When `poll` and `feedback` should be called next, at the latest."""
        times = [min(gap.next_nack, gap.since + LATE_LIMIT) for gap in self._gaps.values()]
        if self._wish.due is not None:
            times.append(self._wish.due)
        return min(times, default=None)

    def _start_over(self, sequence: int) -> None:
        self.counts.frames_lost += 1
        self._stored.clear()
        self._gaps.clear()
        self._depacketizer = Depacketizer()
        self._sequences = Unwrapper()
        self._next = self._sequences.unwrap(sequence)
        self._waiting = True
        self._wish.arise(0.0)

    def _drain(self) -> list[CodedPicture]:
        pictures: list[CodedPicture] = []
        while self._next is not None and self._next in self._stored:
            packet, arrived_at = self._stored.pop(self._next)
            self._next += 1
            for unit in self._depacketizer.push(packet.sequence, packet.timestamp, packet.marker, packet.payload):
                picture = self._judge(unit, arrived_at)
                if picture is not None:
                    pictures.append(picture)
        return pictures

    def _judge(self, unit: AccessUnit, arrived_at: float) -> CodedPicture | None:
        timestamp = self._timestamps.unwrap(unit.timestamp)
        step = timestamp - self._last_timestamp if self._last_timestamp is not None else 0
        self._last_timestamp = timestamp
        if unit.lost and self._started:
            whole = round(step / self._interval) - 1 if self._interval else int(unit.complete)
            self.counts.frames_lost += max(0, whole)
        elif step >= SHORTEST_INTERVAL:  # the pictures of a replay are squeezed together
            self._interval = step
        if unit.keyframe and unit.complete:
            self._waiting, self._started = False, True
            self._wish.fulfilled()
        elif unit.keyframe and self._waiting:
            self._wish.hasten(arrived_at)  # the keyframe that was to help is damaged itself
        elif self._started and not self._waiting and (unit.lost or not unit.complete):
            self._waiting = True
            self._wish.arise(arrived_at)
        if not self._waiting and unit.data:
            return CodedPicture(unit.data, timestamp, unit.keyframe, arrived_at)
        if self._started:
            self.counts.frames_lost += 1
        else:
            self.counts.before_first_keyframe += 1
        return None
