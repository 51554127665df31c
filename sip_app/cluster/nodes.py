"""The application servers that share one store: who is there, at which address, and who has died.

Each renews its lease in the store; one that the others have not seen do so for as long as a lease is dead for them, and
they take its broadcasts over. Only their own clock and the store's answers count: no clocks are compared, and while the
store is away nobody is declared dead. A server that could not renew in time must believe that it happened to itself: it
is not `standing`, and ends no call of its own accord until it has asked.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from protocols.net import Address
from protocols.records import Node
from sip_app.ports import Nodes

RENEWALS = 4
"""Times a lease is renewed before it would run out."""
PATIENCE = 2.0
"""Seconds a call waits for a store that is away, to learn whether another server lives."""

log = structlog.get_logger("sip_app.cluster.nodes")


class Survivor(Protocol):
    """Who deals with the death of servers; all may raise OSError, and are called again then."""

    async def take_over(self, as_id: str) -> None:
        """That server is dead: go on with its broadcasts. It may be called again for one that is dead for long."""
        ...

    async def settle(self) -> None:
        """The store was away, or we were: what others took over meanwhile is not ours any more."""
        ...

    async def look(self) -> None:
        """Called at every sign of life, to see what others do."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """Another server as the store has it, and when it was first seen to have it so, by our clock."""

    node: Node
    since: float


class Cluster:
    """This server among the others. `clock` gives Unix seconds, `lease` is in seconds, the same for all."""

    def __init__(self, nodes: Nodes, as_id: str, lease: float, clock: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._as_id = as_id
        self._lease = lease
        self._clock = clock
        self._others: dict[str, _Seen] = {}
        self._renewed = 0.0
        self._in_touch = asyncio.Event()
        """Set while what we know of the store is no older than our last sign of life."""
        self._beating: asyncio.Task[None] | None = None

    async def claim_name(self, address: Address) -> None:
        """Make sure that no other server runs under our name; waits out the lease of one that died elsewhere.

        Raises OSError when there is one. `address` is where we shall listen.
        """
        known = await self._namesake(address)
        if known is not None:
            await asyncio.sleep(known.lease_until - self._clock())
            if (running := await self._namesake(address)) is not None:
                raise OSError(f"another server named {self._as_id} runs at {running.address}: give each its as_id")

    async def _namesake(self, address: Address) -> Node | None:
        now = self._clock()
        others = [node for node in await self._nodes.all() if _address(node) != address]
        return next((node for node in others if node.as_id == self._as_id and node.lease_until > now), None)

    async def join(self, address: Address, survivor: Survivor) -> None:
        """Become known at `address` (SIP over UDP), and watch the others from now on. Raises OSError."""
        self._address, self._survivor = address, survivor
        await self._renew()
        self._in_touch.set()
        self._beating = asyncio.create_task(self._beat())

    async def leave(self) -> None:
        """Take leave: nobody need wait for our lease to run out."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            await self._nodes.leave(self._as_id)

    @property
    def standing(self) -> bool:
        """True while nobody can have declared us dead."""
        return self._in_touch.is_set() and self._clock() < self._renewed + self._lease

    async def sure(self) -> None:
        """Wait until we stand (again), and have given up whatever others took over meanwhile."""
        while not self.standing:
            self._in_touch.clear()
            await self._in_touch.wait()

    def alive(self, as_id: str) -> bool:
        """True for another server that showed a sign of life within its lease."""
        seen = self._others.get(as_id)
        return seen is not None and self._clock() < seen.since + self._lease

    async def dead(self, as_id: str) -> bool:
        """True for another server that is not alive, nor has come since we looked last. Raises OSError when the store
        cannot be asked."""
        await asyncio.wait_for(self.sure(), PATIENCE)
        if as_id not in self._others:
            await self._see()
        return not self.alive(as_id)

    async def lives(self, as_id: str) -> bool:
        """Wait for another server's next sign of life; False if none comes within its lease. Raises OSError."""
        await self._see()  # what it wrote before does not count
        before = self._others.get(as_id)
        while not await self.dead(as_id):
            now = self._others[as_id]
            if before is not None and now.node != before.node:
                return True
            before = now
            await asyncio.sleep(self._lease / RENEWALS / 2)
        return False

    def address_of(self, as_id: str) -> Address | None:
        """Where another server takes SIP over UDP."""
        seen = self._others.get(as_id)
        return _address(seen.node) if seen is not None else None

    def holds(self, address: Address) -> bool:
        """True for the address of another server of ours, alive or dead."""
        return any(_address(seen.node) == address for seen in self._others.values())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease / RENEWALS)
            try:
                await self._renew()
                if not self._in_touch.is_set():
                    await self._survivor.settle()
                    self._in_touch.set()
                for as_id in [name for name in self._others if not self.alive(name)]:
                    await self._survivor.take_over(as_id)
                await self._survivor.look()
            except OSError as error:
                self._in_touch.clear()
                log.error("cluster.store_unreachable", error=str(error))

    async def _renew(self) -> None:
        now = self._clock()
        if self._in_touch.is_set() and now >= self._renewed + self._lease:
            self._in_touch.clear()  # we hung
        if not self._in_touch.is_set():  # nobody is dead whom we did not watch die
            self._others = {name: replace(seen, since=now) for name, seen in self._others.items()}
        await self._nodes.renew(Node(self._as_id, str(self._address), now + self._lease))
        if not self._in_touch.is_set() and self._renewed:
            log.warning("cluster.was_out_of_touch", seconds=round(now - self._renewed, 1))
        await self._see()
        self._renewed = now

    async def _see(self) -> None:
        now, before = self._clock(), self._others
        seen = {node.as_id: _Seen(node, now) for node in await self._nodes.all() if node.as_id != self._as_id}
        for as_id, other in seen.items():
            if (known := before.get(as_id)) is not None and known.node == other.node:
                seen[as_id] = known
        self._others = seen


def _address(node: Node) -> Address:
    host, _, port = node.address.rpartition(":")
    return Address(host.strip("[]"), int(port))
