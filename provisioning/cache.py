"""A bounded cache of what the database says about addresses of record; used on the event loop only."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Values by key, the least recently used ones dropped beyond `entries`, none older than `lifetime` seconds."""

    def __init__(self, entries: int, lifetime: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._lifetime = lifetime
        self._clock = clock
        self._values: dict[str, tuple[V, float]] = {}

    def get(self, key: str) -> tuple[V] | None:
        """The value in a tuple of one (it may itself be None), or None when it must be read."""
        found = self._values.pop(key, None)
        if found is None or self._clock() >= found[1]:
            return None
        self._values[key] = found  # last in order now: used most recently
        return (found[0],)

    def put(self, key: str, value: V) -> None:
        """Remember what the database said just now."""
        self._values.pop(key, None)
        while len(self._values) >= self._entries:
            del self._values[next(iter(self._values))]
        self._values[key] = (value, self._clock() + self._lifetime)

    def change(self, key: str, change: Callable[[V], V]) -> None:
        """Apply a committed write to the value, if it is known; its age stays."""
        if found := self._values.get(key):
            self._values[key] = (change(found[0]), found[1])

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
