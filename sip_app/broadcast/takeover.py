"""Broadcasts held by other application servers: whom to send their callers to, and going on with those of a dead one.

The relay goes on by itself for `orphan_grace`; whoever wins the claim in the store takes over the dialogs, has the
relay name it the owner, and compares legs with it. The phones notice nothing.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from protocols.net import Address
from protocols.records import Broadcast
from sip_app.broadcast.ending import ENDED
from sip_app.broadcast.group import LEASE, LiveGroup
from sip_app.broadcast.recovery import Restore, go_on, hold, reconcile
from sip_app.broadcast.service import BroadcastCalls
from sip_app.calls.incoming import Dialog
from sip_app.cluster.nodes import Cluster

log = structlog.get_logger()


class Takeover:
    """`restore` makes a dialog of the store a running one, `abandon` forgets one that another server has now."""

    def __init__(
        self, calls: BroadcastCalls, cluster: Cluster, restore: Restore, abandon: Callable[[Dialog], None]
    ) -> None:
        self._calls = calls
        self._service = calls.service
        self._cluster = cluster
        self._restore = restore
        self._abandon = abandon
        self._one_at_a_time = asyncio.Lock()
        self._service.sure = cluster.sure

    async def holder(self, channel: str) -> Address | None:
        """The server that holds the channel's broadcast, if that is another; None for us or nobody.

        One of a dead server is ours when this returns.
        """
        if channel in self._service.open:
            return None
        claim = await self._service.ports.broadcasts.get(channel)
        if claim is None or claim.as_id == self._service.as_id:
            return None
        if await self._cluster.dead(claim.as_id):
            await self.take_over(claim.as_id)
            # Another survivor may have been quicker.
            claims = await self._service.ports.broadcasts.all()
            claim = next((claim for claim in claims if claim.channel == channel), None)
        return self._cluster.address_of(claim.as_id) if claim is not None else None

    async def take_over(self, as_id: str) -> None:
        """Go on with all broadcasts of a server that is dead."""
        async with self._one_at_a_time:
            for claim in await self._service.ports.broadcasts.all():
                if claim.as_id == as_id:
                    await self._take(claim)

    async def _take(self, claim: Broadcast) -> None:
        service = self._service
        mine = replace(claim, as_id=service.as_id, lease_until=time.time() + LEASE)
        if not await service.ports.broadcasts.take_over(mine, claim.as_id):
            return  # another server was quicker
        dialogs = await service.ports.dialogs.adopt(claim.channel, claim.as_id, service.as_id)
        group = hold(service, mine)
        group.inherited_from = claim.as_id
        for stored in dialogs:
            dialog = self._restore(stored)
            if dialog.app.get("epoch") == str(group.epoch):
                dialog.handler = self._calls.handler(group, dialog)
            else:
                service.spawn(dialog.bye(ENDED))
        log.warning("broadcast.inherited", channel=claim.channel, epoch=claim.epoch, from_as=claim.as_id)
        if service.recorder is not None:
            await service.recorder.inherited(group, claim.as_id)
        go_on(service, claim, group)
        if not group.over():
            await self._calls.activate_overlay(group.channel)
            link = service.link.home((group.channel, group.epoch))
            if link is not None and link.up:
                service.spawn(reconcile(service, link))

    async def settle(self) -> None:
        """The store was away, or we were: what another server holds now is forgotten here, and nobody is told; what
        began and ended here meanwhile is written down."""
        service, ports = self._service, self._service.ports
        claims = {claim.channel: claim for claim in await ports.broadcasts.all()}
        for group in list(service.open.values()):
            claim = claims.get(group.channel)
            if claim is not None and claim.as_id != service.as_id:
                self._give_up(group)
        busy = service.open.keys() | {group.channel for group in service.closing}
        for claim in claims.values():
            if claim.as_id == service.as_id and claim.channel not in busy:
                await ports.diversions.clear_overlay(claim.channel, claim.epoch)
                await ports.broadcasts.release(claim.channel, claim.epoch, claim.as_id)

    async def look(self) -> None:
        """See Survivor."""
        for look in self._service.looking:
            await look()

    def _give_up(self, group: LiveGroup) -> None:
        log.error("broadcast.lost_to_another_server", channel=group.channel, epoch=group.epoch)
        group.state = "closing"
        self._service.open.pop(group.channel, None)
        self._service.link.forget((group.channel, group.epoch))
        for waiting in (group.grace, group.deadline):
            if waiting is not None:
                waiting.cancel()
        if self._service.recorder is not None:
            self._service.recorder.abandoned(group)
        for call in list(group.pending):
            call.reject(503)
        for dialog in (group.source, *(viewer.dialog for viewer in group.viewers.values())):
            if dialog is not None:
                self._abandon(dialog)
        group.viewers.clear()
