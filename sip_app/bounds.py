"""What strangers can fill or use up stays bounded: tables by size, rates by token buckets, those by number as well."""

from typing import TypeVar

MAX_TRACKED = 20_000
"""Clients or accounts something is counted for."""

K = TypeVar("K")
V = TypeVar("V")


def make_room(table: dict[K, V], most: int) -> None:
    """Forget the oldest entries of a table until one more fits."""
    while len(table) >= most:
        del table[next(iter(table))]


class RateLimit:
    """A token bucket per host or account: `rate` tokens a second, bursts of `burst` (None: a second's worth)."""

    def __init__(self, rate: float, *, burst: int | None = None) -> None:
        self._rate = float(rate)
        self._burst = float(rate if burst is None else burst)
        self._buckets: dict[str, tuple[float, float]] = {}
        self.dropped = 0

    @classmethod
    def a_minute(cls, count: int) -> "RateLimit":
        """`count` at once, and so many a minute."""
        return cls(count / 60, burst=count)

    def allows(self, name: str, now: float) -> bool:
        """Take one token of `name`; False if there is none."""
        return not self.wait(name, now)

    def wait(self, name: str, now: float) -> float:
        """Take one token of `name`; 0.0 if there was one, else the seconds until there is."""
        tokens, at = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        if tokens < 1.0:
            self.dropped += 1
            return (1.0 - tokens) / self._rate
        if len(self._buckets) >= MAX_TRACKED and name not in self._buckets:
            self._forget_idle(now)
        self._buckets[name] = (tokens - 1.0, now)
        return 0.0

    def _forget_idle(self, now: float) -> None:
        """Whoever was silent long enough has a full bucket: nothing is lost. All busy: start anew."""
        full = self._burst / self._rate
        self._buckets = {name: entry for name, entry in self._buckets.items() if now - entry[1] < full}
        if len(self._buckets) >= MAX_TRACKED:
            self._buckets.clear()
