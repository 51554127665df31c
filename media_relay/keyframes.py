"""Keyframes: what a new viewer starts with, and when to ask the source for another (RFC 4585, RFC 5104, RFC 5168).

`KeyframeCache` knows where in the packet history the last keyframe began and whether what came since is short
enough to replay. `squeezed` gives replayed frames timestamps that end at the live picture, so that the viewer is
not behind for good. `KeyframeRequests` coalesces wishes to at most one a second a group, escalates PLI -> FIR ->
SIP INFO for sources that understand less, and lets no single viewer set the pace.
"""

from collections.abc import Iterable
from typing import Literal

Ask = Literal["pli", "fir", "info"]
_ESCALATION: tuple[Ask, ...] = ("pli", "fir", "info")
MAX_BACK_OFF = 60.0
"""Seconds a viewer that keeps asking is made to wait at most; after as long a silence it is trusted anew."""


class KeyframeCache:
    """Where the newest keyframe starts, and whether the packets since are within the bounds."""

    __slots__ = ("_bytes", "_max_bytes", "_max_seconds", "_started_at", "start", "timestamp")

    def __init__(self, max_seconds: float, max_bytes: int) -> None:
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._bytes = 0
        self._started_at = 0.0
        self.start: int | None = None
        """Group sequence number of the keyframe's first packet."""
        self.timestamp: int | None = None

    def add(self, sequence: int, timestamp: int, starts: bool, size: int, now: float) -> bool:
        """Note a packet of `size` octets that may start a keyframe; True when a new one starts with it."""
        if starts and timestamp == self.timestamp and self.start is not None:
            self.start = min(self.start, sequence)
        elif starts and (self.start is None or sequence > self.start):
            self.start, self.timestamp = sequence, timestamp
            self._bytes, self._started_at = size, now
            return True
        self._bytes += size
        return False

    @property
    def size(self) -> int:
        """Octets since the keyframe began, itself included; 0 without one."""
        return 0 if self.start is None else self._bytes

    def usable(self, now: float) -> bool:
        """True when a viewer can be started with what is there."""
        return self.start is not None and self._bytes <= self._max_bytes and now - self._started_at <= self._max_seconds

    def clear(self) -> None:
        """The source changed: its keyframe is nobody's start any more."""
        self.start = self.timestamp = None


def squeezed(timestamps: Iterable[int], clock_rate: int) -> dict[int, int]:
    """New timestamps for replayed frames: at most 1 ms apart, in the same order, the newest unchanged."""
    ordered = sorted(set(timestamps), reverse=True)
    gap = max(1, clock_rate // 1000)
    result: dict[int, int] = {}
    later: int | None = None
    for original in ordered:
        result[original] = original if later is None else max(original, result[later] - gap)
        later = original
    return result


class _Viewer:
    __slots__ = ("allowed_at", "wait")

    def __init__(self, wait: float, now: float) -> None:
        self.wait = wait
        self.allowed_at = now


class KeyframeRequests:
    """When to ask the source for a keyframe, and how loudly."""

    def __init__(self, interval: float, viewer_interval: float) -> None:
        self._interval = interval
        self._viewer_interval = viewer_interval
        self._viewers: dict[str, _Viewer] = {}
        self._asked_at = float("-inf")
        self._wanted = False
        self._unanswered = 0
        self.asked = 0
        """Requests sent upstream so far."""

    def viewer_asks(self, viewer: str, now: float) -> None:
        """A viewer's PLI or FIR: counts once per interval, which doubles while it keeps asking."""
        state = self._viewers.get(viewer)
        if state is None:
            state = self._viewers[viewer] = _Viewer(self._viewer_interval, now)
        if now < state.allowed_at:
            return
        patient = now - state.allowed_at > MAX_BACK_OFF
        state.wait = self._viewer_interval if patient else state.wait
        state.allowed_at = now + state.wait
        state.wait = min(state.wait * 2, max(MAX_BACK_OFF, self._viewer_interval))
        self._wanted = True

    def want(self) -> None:
        """The group itself needs one: a viewer without a start, or the AS asks."""
        self._wanted = True

    def forget(self, viewer: str) -> None:
        """The viewer left."""
        self._viewers.pop(viewer, None)

    def seen(self, now: float) -> None:
        """A keyframe arrived: all wishes are met, and whatever was asked last works."""
        self._wanted = False
        self._unanswered = 0

    def source_replaced(self) -> None:
        """A new source: nothing is known about what it understands, and it may be asked at once."""
        self._unanswered = 0
        self._asked_at = float("-inf")

    def next_timer(self) -> float | None:
        """When `due` has something to say, None without a wish."""
        return self._asked_at + self._wait() if self._wanted else None

    def due(self, now: float) -> Ask | None:
        """How to ask now, None when not to. A wish stays until `seen`, asked again with growing patience."""
        if not self._wanted or now < self._asked_at + self._wait():
            return None
        ask = _ESCALATION[min(self._unanswered, len(_ESCALATION) - 1)]
        self._unanswered += 1
        self._asked_at = now
        self.asked += 1
        return ask

    def _wait(self) -> float:
        beyond = max(0, self._unanswered - len(_ESCALATION))
        return float(min(self._interval * 2**beyond, max(self._interval, 30.0)))
