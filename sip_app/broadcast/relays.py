"""The relays this server uses, as one: a new group goes to the least busy, its commands to the relay that holds it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from protocols.control import CloseGroup, Event, GroupCommand, LegInfo, LegPlaced, OpenAnnouncement, OpenGroup, Reply
from sip_app.broadcast.held_legs import GroupKey, HeldLegs
from sip_app.broadcast.relay_link import RelayLink, RelayListener, RelayUnavailable

R = TypeVar("R", bound=Reply)


class RelayPool:
    """Links to all relays. A group stays where it was opened; nothing moves between relays."""

    def __init__(self, links: Sequence[RelayLink]) -> None:
        self.links = tuple(links)
        self._homes: dict[GroupKey, str] = {}
        """The relay id of every group that is open, or was when this server last ran."""
        self.legs = HeldLegs()
        """What the relays granted."""

    def start(self, listener: RelayListener) -> None:
        """Begin dialling; returns at once."""
        for link in self.links:
            link.start(listener)

    async def settled(self) -> None:
        """Returns once every relay has been reached and compared with."""
        await asyncio.gather(*(link.settled.wait() for link in self.links))

    async def stop(self) -> None:
        """Hang up; the relays keep their groups for `orphan_grace`."""
        await asyncio.gather(*(link.stop() for link in self.links))

    def settle(self, group: GroupKey, relay_id: str) -> None:
        """Remember where a group of the past lives."""
        self._homes[group] = relay_id

    def relay_of(self, group: GroupKey) -> str:
        """The id of the relay that holds the group, "" if none does."""
        return self._homes.get(group, "")

    def home(self, group: GroupKey) -> RelayLink | None:
        """The link to the relay that holds the group; None if none does, or a relay that was not reached yet."""
        relay_id = self._homes.get(group)
        return next((link for link in self.links if relay_id and link.relay_id == relay_id), None)

    async def call(self, command: GroupCommand, kind: type[R], *, near: GroupKey | None = None) -> R:
        """One command about a group and its reply. `near` names a group whose relay a new one must share.

        Raises `RelayUnavailable` without its relay, `ControlError` when that refuses.
        """
        group = command.group_id, command.epoch
        opening = isinstance(command, OpenGroup | OpenAnnouncement)
        link = self.home(group)
        if link is None and opening:
            link = self.home(near) if near is not None else self._idlest()
            if link is not None:
                self._homes[group] = link.relay_id
        answered = False
        self.legs.asked(command)
        try:
            if link is None:
                raise RelayUnavailable(f"no relay holds {command.group_id}")
            reply = await link.call(command, kind)
            answered = True
            if isinstance(reply, LegInfo):
                self.legs.granted(command, reply)
            return reply
        finally:
            if isinstance(command, CloseGroup) or (isinstance(command, OpenAnnouncement) and not answered):
                self.forget(group)

    def heard(self, event: Event) -> None:
        """What a relay reports."""
        if isinstance(event, LegPlaced):
            self.legs.placed(event)

    def forget(self, group: GroupKey) -> None:
        """The group is over, or another server's."""
        self._homes.pop(group, None)
        self.legs.forget(group)

    def _idlest(self) -> RelayLink:
        standing = [link for link in self.links if link.up]
        if not standing:
            raise RelayUnavailable(f"no relay at {', '.join(str(link.address) for link in self.links)}")
        load = Counter(self._homes.values())
        return min(standing, key=lambda link: load[link.relay_id])
