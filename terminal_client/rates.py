"""How fast counters grow: the live numbers of the connected screen."""


class Rates:
    """Differences of counters over the time between two looks at them."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def of(self, name: str, count: float, now: float) -> float:
        """How fast `count` grew since the last call, per second."""
        before, since = self._last.get(name, (count, now))
        self._last[name] = count, now
        return (count - before) / (now - since) if now > since else 0.0
