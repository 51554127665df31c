"""Digits as named telephone events in RTP (RFC 4733 section 2, the events of section 3.2).

An event is one key press: packets with the same RTP timestamp, the duration growing, the last one sent three times
with the end bit. `EventReceiver` tells each press once, whatever is lost, doubled or late; `build` makes the packets.
"""

from collections import deque
from dataclasses import dataclass
from struct import Struct

from protocols.rtp.sequence import TIMESTAMP_BITS, difference

DIGITS = "0123456789*#ABCD"
"""Keys by event code, 0-15; flash and the tones beyond are no keys."""
NAME = "telephone-event"
CLOCK_RATE = 8000
EVENTS = "0-15"
"""Our fmtp: every key (RFC 4733 section 2.4.1)."""
END_REPEATS = 3
"""How often the last packet of an event is sent (RFC 4733 section 2.5.1.4)."""
MAX_DURATION = 0xFFFF
DEFAULT_VOLUME = 10
"""-dBm0; section 2.3.4 asks senders for -36 to 0."""
REMEMBERED = 8
"""Presses told lately, so that a packet of one that comes late counts no second time."""

_PAYLOAD = Struct("!BBH")


class TelephoneEventError(ValueError):
    """The payload is no telephone event."""


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """One payload: the event's code, whether it is over, and how long it lasted so far in timestamp units."""

    event: int
    end: bool
    duration: int
    volume: int = DEFAULT_VOLUME

    @property
    def digit(self) -> str:
        """The key, "" for an event that is none."""
        return DIGITS[self.event] if self.event < len(DIGITS) else ""

    @classmethod
    def parse(cls, payload: bytes) -> "TelephoneEvent":
        """The event of a payload; what RFC 2198-like senders put behind it is not read. TelephoneEventError."""
        if len(payload) < _PAYLOAD.size:
            raise TelephoneEventError("telephone event cut off")
        event, flags, duration = _PAYLOAD.unpack_from(payload)
        return cls(event, bool(flags & 0x80), duration, flags & 0x3F)

    def serialise(self) -> bytes:
        """Four octets; TelephoneEventError for values they have no room for."""
        if not (0 <= self.event < 256 and 0 <= self.duration <= MAX_DURATION and 0 <= self.volume < 64):
            raise TelephoneEventError("event, duration or volume out of range")
        return _PAYLOAD.pack(self.event, self.end << 7 | self.volume, self.duration)


@dataclass(frozen=True, slots=True)
class Press:
    """A key that was pressed, and for how long: timestamp units of 1/8000 s, at least one."""

    digit: str
    duration: int


class EventReceiver:
    """Puts the packets of one sender together; not thread-safe.

    A press is told when it ends. If its end is lost, it is told when the next one begins or `flush` gives it up.
    """

    def __init__(self) -> None:
        self._current: tuple[int, TelephoneEvent] | None = None
        self._told: deque[int] = deque(maxlen=REMEMBERED)

    def receive(self, timestamp: int, payload: bytes) -> list[Press]:
        """The presses that are over with this packet, oldest first; TelephoneEventError for garbage."""
        event = TelephoneEvent.parse(payload)
        if not event.digit or timestamp in self._told:
            return []
        pressed: list[Press] = []
        if self._current is not None and self._current[0] != timestamp:
            if difference(timestamp, self._current[0], TIMESTAMP_BITS) < 0:
                return []  # older than the one going on, and never told: it began and ended out of order
            pressed = self.flush()
        longest = max(event.duration, self._current[1].duration if self._current is not None else 0)
        self._current = (timestamp, TelephoneEvent(event.event, event.end, longest, event.volume))
        return pressed + (self.flush() if event.end else [])

    def flush(self) -> list[Press]:
        """The press whose end never came, if there is one."""
        if self._current is None:
            return []
        timestamp, event = self._current
        self._current = None
        self._told.append(timestamp)
        return [Press(event.digit, max(1, event.duration))]

    @property
    def pending(self) -> bool:
        """True while a key is held, as far as we know."""
        return self._current is not None


def build(digit: str, duration: int, step: int = 160) -> list[TelephoneEvent]:
    """The payloads of one press of `duration` timestamp units, one every `step`, the last three times with end bit.

    All go under one RTP timestamp, the first with the marker bit. TelephoneEventError for what is no key.
    """
    if len(digit) != 1 or digit.upper() not in DIGITS or not 0 < duration <= MAX_DURATION:
        raise TelephoneEventError("no such key, or no such duration")
    code = DIGITS.index(digit.upper())
    going_on = [TelephoneEvent(code, False, elapsed) for elapsed in range(step, duration, step)]
    return [*going_on, *[TelephoneEvent(code, True, duration)] * END_REPEATS]
