"""The application servers that share one store: who is there, at which address, and who has died.

Each renews its lease in the store; one whose lease ran out is dead for the others, who may then take its broadcasts
over. A server that could not renew in time must believe that this has happened to it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from protocols.net import Address
from protocols.records import Node
from sip_app.ports import Nodes

RENEWALS = 4
"""Times a lease is renewed before it would run out."""

log = structlog.get_logger("sip_app.cluster")


class Survivor(Protocol):
    """Who deals with the death of servers; both may raise OSError, and are called again then."""

    async def take_over(self, as_id: str) -> None:
        """That server is dead: go on with its broadcasts. It may be called again for one that is dead for long."""
        ...

    async def give_up_lost(self) -> None:
        """We counted as dead for a while: what others took over meanwhile is not ours any more."""
        ...


class Cluster:
    """This server among the others. `clock` gives Unix seconds, `lease` is in seconds."""

    def __init__(self, nodes: Nodes, as_id: str, lease: float, clock: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._as_id = as_id
        self._lease = lease
        self._clock = clock
        self._others: dict[str, Node] = {}
        self._renewed = 0.0
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
        self._beating = asyncio.create_task(self._beat())

    async def leave(self) -> None:
        """Take leave: nobody need wait for our lease to run out."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            await self._nodes.leave(self._as_id)

    def alive(self, as_id: str) -> bool:
        """True for another server whose lease stands."""
        node = self._others.get(as_id)
        return node is not None and node.lease_until > self._clock()

    def address_of(self, as_id: str) -> Address | None:
        """Where another server takes SIP over UDP."""
        node = self._others.get(as_id)
        return _address(node) if node is not None else None

    def holds(self, address: Address) -> bool:
        """True for the address of another server of ours, alive or dead."""
        return any(_address(node) == address for node in self._others.values())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease / RENEWALS)
            try:
                await self._renew()
                for as_id in [name for name in self._others if not self.alive(name)]:
                    await self._survivor.take_over(as_id)
            except OSError as error:
                log.error("cluster.store_unreachable", error=str(error))

    async def _renew(self) -> None:
        now = self._clock()
        was_dead = 0 < self._renewed < now - self._lease
        await self._nodes.renew(Node(self._as_id, str(self._address), now + self._lease))
        if was_dead:
            log.error("cluster.was_out_of_touch", seconds=round(now - self._renewed, 1))
            await self._survivor.give_up_lost()
        self._renewed = now
        self._others = {node.as_id: node for node in await self._nodes.all() if node.as_id != self._as_id}


def _address(node: Node) -> Address:
    host, _, port = node.address.rpartition(":")
    return Address(host.strip("[]"), int(port))
