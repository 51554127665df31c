"""When transactions are due (RFC 3261 table 4): retransmissions in a heap, ends in one line for each length of time.

What ends in the same number of seconds ends in the order it began: in a line of thousands that only wait to be
forgotten (timers D, H, J, L, M) each takes 16 bytes, and nothing is touched until its turn comes. A timer that was set
anew, or stopped, stays where it is until then, known by not being the transaction's `retry_at` or `expire_at` any more.
"""

import heapq
from collections import deque
from itertools import count

from protocols.sip.events import Transaction
from protocols.sip.transaction_table import Cause

_FEW = 256
"""Timers that may be over before it is worth looking for them."""


class _Line:
    """Ends after one length of time, the earliest first."""

    __slots__ = ("_at", "_of", "_sweep_at")

    def __init__(self) -> None:
        self._at: deque[float] = deque()
        self._of: deque[Transaction] = deque()
        self._sweep_at = _FEW

    def __len__(self) -> int:
        return len(self._at)

    def add(self, at: float, tx: Transaction) -> None:
        self._at.append(at)
        self._of.append(tx)
        if len(self._at) > self._sweep_at:
            live = [(at, tx) for at, tx in zip(self._at, self._of, strict=True) if at == tx.expire_at]
            self._at, self._of = deque([at for at, _ in live]), deque([tx for _, tx in live])
            self._sweep_at = _FEW + 2 * len(live)

    def first(self) -> float | None:
        while self._at:
            at = self._at[0]
            if at == self._of[0].expire_at:
                return at
            self.take()
        return None

    def take(self) -> Transaction:
        self._at.popleft()
        return self._of.popleft()


class Timetable:
    """The timers of all transactions."""

    def __init__(self) -> None:
        self._retries: list[tuple[float, int, Transaction]] = []
        self._order = count()
        self._sweep_at = _FEW
        self._lines: dict[float, _Line] = {}

    def __len__(self) -> int:
        return len(self._retries) + sum(map(len, self._lines.values()))

    def retry(self, tx: Transaction, at: float) -> None:
        """Something is sent again, or for the first time, at this time."""
        tx.retry_at = at
        heapq.heappush(self._retries, (at, next(self._order), tx))
        if len(self._retries) > self._sweep_at:
            self._retries = [entry for entry in self._retries if entry[0] == entry[2].retry_at]
            heapq.heapify(self._retries)
            self._sweep_at = _FEW + 2 * len(self._retries)

    def expire(self, tx: Transaction, now: float, seconds: float) -> None:
        """The state ends so many seconds from now."""
        tx.expire_at = now + seconds
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = _Line()
        line.add(tx.expire_at, tx)

    def next(self) -> float | None:
        """When the first is due, or None."""
        heap = self._retries
        while heap and heap[0][0] != heap[0][2].retry_at:
            heapq.heappop(heap)
        earliest = heap[0][0] if heap else None
        for line in self._lines.values():
            at = line.first()
            if at is not None and (earliest is None or at <= earliest):
                earliest = at
        return earliest

    def due(self, now: float) -> tuple[Transaction, Cause] | None:
        """Take out the first that is due at `now`."""
        at = self.next()
        if at is None or at > now:
            return None
        for line in self._lines.values():
            if line.first() == at:
                tx = line.take()
                tx.expire_at = 0.0
                return tx, "expire"
        return heapq.heappop(self._retries)[2], "retry"
