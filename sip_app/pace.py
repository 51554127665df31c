"""Paces: what goes to many phones goes one after another, and one account may say so much a minute."""

import asyncio

MOST_ACCOUNTS = 20_000


class Pace:
    """`rate` turns a second, in the order in which they were asked for."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next)
        self._next = at + self._step
        if at > now:
            await asyncio.sleep(at - now)


class Allowance:
    """A token bucket per account: `per_minute` at once, and so many a minute; memory is bounded."""

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, account: str, now: float) -> float:
        """0.0 if the account may go on at `now`, else the seconds until it may."""
        left, at = self._left.get(account, (self._most, now))
        left = min(self._most, left + (now - at) * self._most / 60)
        if left < 1:
            return (1 - left) * 60 / self._most
        if account not in self._left and len(self._left) >= MOST_ACCOUNTS:
            self._left = {name: entry for name, entry in self._left.items() if now - entry[1] < 60}
            if len(self._left) >= MOST_ACCOUNTS:
                self._left.clear()
        self._left[account] = (left - 1, now)
        return 0.0
