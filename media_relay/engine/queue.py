"""What the plain engine has to tell: a queue in which no flood hides what happens to legs, or what others send."""

from collections import Counter, deque

from media_relay.engine import Datagram, EngineEvent, KeyframeNeeded, SourceStarted

MAX_EVENTS = 8192
"""Events kept for the control side; beyond it what a flood can be made of is lost, as in any full queue."""
SOCKET_EVENTS = MAX_EVENTS // 16
"""Datagrams of one socket among them."""
ERRORS_INTERVAL = 0.02
"""Seconds in which one socket's ICMP errors are told once, then all that are read at a time: anybody can forge them."""
TELL_INTERVAL = 0.05
"""Seconds between two events of a kind that a source can make as many of as it likes."""


class EventQueue:
    """Events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[EngineEvent] = deque()
        self._waiting: Counter[int] = Counter()
        """Datagrams, by socket."""

    def put(self, event: EngineEvent) -> None:
        """Add it where there is room, or where it is of a kind that nobody can make many of."""
        fd = event.socket.fileno() if isinstance(event, Datagram) else -1
        if fd >= 0 and self._waiting[fd] == SOCKET_EVENTS:
            return
        if len(self._events) == MAX_EVENTS:
            if not isinstance(event, SourceStarted | KeyframeNeeded):
                return
            oldest = self._events.popleft()
            if isinstance(oldest, Datagram):
                self._waiting[oldest.socket.fileno()] -= 1
        if fd >= 0:
            self._waiting[fd] += 1
        self._events.append(event)

    def take(self) -> list[EngineEvent]:
        """All of them."""
        events = list(self._events)
        self._events.clear()
        self._waiting.clear()
        return events
