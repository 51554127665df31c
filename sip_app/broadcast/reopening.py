"""A relay that was started anew has nothing of ours: its broadcasts are opened again, and the phones notice a gap.

Each leg is asked for as it was: ports, credentials, and where its phone was last seen. What the relay grants is what
the phone knows, and media flows as soon as the relay has a keyframe. Where something else holds the ports, the phone is
told the new ones by re-INVITE. A viewer who does not take them loses his view, a broadcaster the broadcast.
"""

import asyncio
import time

import structlog

from protocols.control import AddViewer, ControlError, LegInfo, OpenGroup
from sip_app.broadcast.ending import RELAY_LOST, conclude, end_viewer
from sip_app.broadcast.group import Broadcasting, LiveGroup
from sip_app.broadcast.in_call import SourceCall, ViewerCall, play
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.calls.incoming import Dialog

IN_FLIGHT = 32
"""Commands a relay is given at once when all its groups are opened again: each must be answered in time."""

AGAIN = 1.0
"""Seconds until a relay that stands, but did not answer in time, is asked once more."""
IN_A_ROW = 5
"""Deaths of its relay a broadcast outlives that come within `QUIET` of each other: it may be what kills it, and the
others there shall live."""
QUIET = 60.0

log = structlog.get_logger()


def reopen(service: Broadcasting, group: LiveGroup, slots: asyncio.Semaphore) -> None:
    """Begin to open a group again on the relay that had it; `slots` bounds the commands of all of them."""
    if group.reopening is not None:
        group.reopening.cancel()  # the relay died again meanwhile
    now, (before, times) = time.monotonic(), group.reopened
    group.reopened = now, times + 1 if now - before < QUIET else 1
    if group.reopened[1] > IN_A_ROW:
        log.warning("broadcast.not_reopened", channel=group.channel, error="its relay dies again and again")
        service.spawn(conclude(service, group, RELAY_LOST))
        return
    group.reopening = service.spawn(_reopen(service, group, slots))


class _StaysAwayError(Exception):
    """The broadcaster does not take the new ports."""


async def _reopen(service: Broadcasting, group: LiveGroup, slots: asyncio.Semaphore) -> None:
    began = time.monotonic()
    try:
        while (legs := await _tried(service, group, slots)) is None:  # noqa: ASYNC110 - each look is a new attempt
            await asyncio.sleep(AGAIN)
    except RelayUnavailable as error:
        # It is gone again: when it is back all this begins anew, if it stays away the broadcast ends.
        log.warning("broadcast.not_reopened", channel=group.channel, error=str(error))
    except (ControlError, _StaysAwayError) as error:
        log.warning("broadcast.not_reopened", channel=group.channel, error=str(error))
        service.spawn(conclude(service, group, RELAY_LOST))
    else:
        group.reopening = None
        seconds = round(time.monotonic() - began, 3)
        log.info("broadcast.reopened", channel=group.channel, epoch=group.epoch, legs=legs, seconds=seconds)


async def _tried(service: Broadcasting, group: LiveGroup, slots: asyncio.Semaphore) -> int | None:
    """What `_open_again` gives; None while the relay stands but has too much to do."""
    try:
        return await _open_again(service, group, slots)
    except RelayUnavailable:
        link = service.link.home((group.channel, group.epoch))
        if link is None or not link.up:
            raise
        return None


async def _open_again(service: Broadcasting, group: LiveGroup, slots: asyncio.Semaphore) -> int:
    """All legs of the group, source first; their number."""
    key = group.channel, group.epoch
    legs = service.link.legs.of(key)
    source = next((held for held in legs.values() if held.source), None)
    if source is None:
        raise ControlError("unknown-group", "this server was restarted since, and does not know what there was")
    for silent in [leg for leg in service.silent if leg[:2] == key]:
        del service.silent[silent]  # whoever is silent still is reported anew
    async with slots:
        if group.over():
            return 0
        info = await service.link.call(OpenGroup(*key, source.again), LegInfo)
    for unknown in [viewer for leg_id, viewer in group.viewers.items() if leg_id not in legs]:
        service.spawn(end_viewer(service, group, unknown, RELAY_LOST))  # came before this server was restarted
    viewers = [leg_id for leg_id, held in legs.items() if not held.source]
    await asyncio.gather(
        _broadcaster_again(service, group, info), *(_viewer_again(service, group, leg_id, slots) for leg_id in viewers)
    )
    return len(legs)


async def _broadcaster_again(service: Broadcasting, group: LiveGroup, info: LegInfo) -> None:
    """One who is lost is not asked: calling again brings new ports anyway."""
    if group.source is None or group.state == "lost" or await _agreed(service, group.source, info) or group.over():
        return
    raise _StaysAwayError("the broadcaster takes no other ports")


async def _viewer_again(service: Broadcasting, group: LiveGroup, leg_id: str, slots: asyncio.Semaphore) -> None:
    async with slots:
        held = service.link.legs.get((group.channel, group.epoch), leg_id)
        if held is None or group.over():  # hung up meanwhile
            return
        try:
            info = await service.link.call(AddViewer(group.channel, group.epoch, held.again), LegInfo)
        except ControlError as error:
            log.warning("viewer.no_relay", channel=group.channel, error=str(error))
            info = None
    viewer = group.viewers.get(leg_id)
    if viewer is None:
        return  # not answered yet, or just gone
    if info is None or not await _agreed(service, viewer.dialog, info):
        await end_viewer(service, group, viewer, RELAY_LOST)
    else:
        service.spawn(play(service, group, viewer.dialog))  # if he was still waiting for that


async def _agreed(service: Broadcasting, dialog: Dialog, info: LegInfo) -> bool:
    """True once the phone knows these ports: it mostly does, and takes others within `reopen_timeout`."""
    if not isinstance(call := dialog.handler, SourceCall | ViewerCall):
        return False  # the call is over
    try:
        async with asyncio.timeout(service.config.service.reopen_timeout):
            return await call.move(info)
    except TimeoutError:
        return False
