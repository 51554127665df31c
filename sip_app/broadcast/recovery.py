"""Holding everything again: after this server was restarted, and after the control link was gone.

Store and relay are compared group by group, leg by leg. What both know goes on; what only the store knows has lost
its media and is opened again (`reopening`), a leg that is missing alone ended with a reason; what only the relay knows
has lost its call and is closed there.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import structlog

from protocols.control import ClaimGroup, CloseGroup, ControlError, Done, LegLost, LegRow
from protocols.records import Broadcast, StoredDialog
from provisioning.config import ServicePolicy
from sip_app.broadcast.ending import (
    BROADCASTER_LOST,
    ENDED,
    RELAY_LOST,
    broadcaster_lost,
    conclude,
    end_group,
    leg_lost,
    limit_duration,
)
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.broadcast.in_call import play
from sip_app.broadcast.media import load_formats
from sip_app.broadcast.relay_link import RelayLink, RelayUnavailable
from sip_app.broadcast.reopening import IN_FLIGHT, reopen
from sip_app.calls.incoming import Dialog, DialogHandler

Restore = Callable[[StoredDialog], Dialog]
Handle = Callable[[LiveGroup, Dialog], DialogHandler]

NO_LONGER_SERVED = ServicePolicy(number="0", viewers="listed")
"""The policy of a broadcast whose service number is no longer configured: nobody may come in until it has ended."""

CLAIM_ATTEMPTS = 20
CLAIM_AGAIN = 1.0
"""Seconds between two attempts to become the owner of a group whose server the relay has not missed yet."""

log = structlog.get_logger()


async def restore(service: Broadcasting, restore_dialog: Restore, handle: Handle) -> None:
    """Read back the groups and dialogs this server held, and withdraw every overlay without a group.

    Runs before the first INVITE is accepted.
    """
    all_claims = await service.ports.broadcasts.all()
    claims = [claim for claim in all_claims if claim.as_id == service.as_id]
    for claim in claims:
        hold(service, claim)
    dialogs = [restore_dialog(stored) for stored in await service.ports.dialogs.owned_by(service.as_id)]
    for dialog in dialogs:
        group = service.group(dialog.app.get("group", ""), int(dialog.app.get("epoch", "0")))
        if group is None:
            service.spawn(dialog.bye(ENDED))
        else:
            dialog.handler = handle(group, dialog)
    held = {(group.channel, group.epoch) for group in service.open.values() if group.source is not None}
    elsewhere = {(c.channel, c.epoch) for c in all_claims if c.as_id != service.as_id and c.lease_until > time.time()}
    for channel, overlay in await service.ports.diversions.overlays():
        if (overlay.group_id, overlay.epoch) in held:
            service.open[channel].forwarded = True
        elif (overlay.group_id, overlay.epoch) not in elsewhere:
            await service.ports.diversions.clear_overlay(channel, overlay.epoch)
            log.info("diversion.overlay_withdrawn", channel=channel)
    for claim in claims:
        go_on(service, claim, service.open[claim.channel])
    if claims:
        log.info("broadcast.restored", groups=len(claims), dialogs=len(dialogs))


def hold(service: Broadcasting, claim: Broadcast) -> LiveGroup:
    """The group of a claim, open again; its dialogs are still to be handed to it."""
    group = service.open[claim.channel] = _group(claim, service.policies.get(claim.service, NO_LONGER_SERVED))
    service.link.settle((claim.channel, claim.epoch), claim.relay_id)
    return group


def go_on(service: Broadcasting, claim: Broadcast, group: LiveGroup) -> None:
    """Once its dialogs are back: let the group live on, or end what was not to go on."""
    if claim.state in ("closing", "opening") or group.policy is NO_LONGER_SERVED:
        # Its end had begun, or its beginning had not been answered, or its number is no service any more.
        service.spawn(end_group(service, group, ENDED))
    else:
        limit_duration(service, group)


def adopt(group: LiveGroup, dialog: Dialog) -> Viewer | None:
    """Put a restored dialog where it belongs: the group's source (None), or one of its viewers."""
    if dialog.app.get("role") == "source":
        if dialog.app.get("leg") == group.leg_id:
            group.source = dialog
        return None
    viewer = Viewer(dialog.app.get("leg", ""), dialog.app.get("number", ""), dialog, time.time(), _later_version())
    viewer.caller = dialog.app.get("caller", "")
    group.viewers[viewer.leg_id] = viewer
    return viewer


async def reconcile(service: Broadcasting, link: RelayLink) -> None:
    """Compare with one relay and end, on either side, what the other no longer has."""
    try:
        await _reconcile(service, link)
    except (RelayUnavailable, ControlError) as error:
        # The link dropped again meanwhile; the next one reconciles.
        log.warning("relay.not_reconciled", error=str(error))


async def _reconcile(service: Broadcasting, link: RelayLink) -> None:
    await service.sure()
    # Only what was there before the relay was asked can be missing from its answer.
    here = [group for group in service.open.values() if service.link.home((group.channel, group.epoch)) is link]
    before = {group: set(group.viewers) for group in here}
    if not link.reborn:
        await asyncio.gather(*(_claim(service, link, group) for group in before))
    slots = asyncio.Semaphore(IN_FLIGHT)
    legs: dict[tuple[str, int], dict[str, LegRow]] = defaultdict(dict)
    for row in await link.legs():
        legs[row.group_id, row.epoch][row.leg_id] = row
    for group, viewers in before.items():
        there = legs.pop((group.channel, group.epoch), {})
        if group.over():
            continue
        if not there and group.state == "opening":
            service.spawn(conclude(service, group, RELAY_LOST))
        elif not there or group.reopening is not None:
            reopen(service, group, slots)
        elif group.source is None and group.state not in ("opening", "lost"):
            service.spawn(conclude(service, group, BROADCASTER_LOST))
        else:
            await _reconcile_legs(service, group, viewers, there)
    for channel, epoch in legs:
        spoken_to = service.announcements is not None and service.announcements.holds(channel)
        if service.group(channel, epoch) is None and not spoken_to:
            claim = await service.ports.broadcasts.get(channel)
            if claim is not None and claim.epoch == epoch and claim.as_id != service.as_id:
                continue  # another server took it over from us, and has yet to tell the relay
            log.info("relay.stray_group_closed", channel=channel, epoch=epoch)
            await link.call(CloseGroup(channel, epoch), Done)


async def _claim(service: Broadcasting, link: RelayLink, group: LiveGroup) -> None:
    """Have the relay name us the group's owner; a group it does not have is then missing from its list."""
    for _ in range(CLAIM_ATTEMPTS):
        try:
            await link.call(ClaimGroup(group.channel, group.epoch, group.inherited_from), Done)
            return
        except ControlError as error:
            if error.code != "not-owner" or group.over():
                log.warning("relay.group_not_claimed", channel=group.channel, error=str(error))
                return
        # It still believes in the server we took the group over from.
        await asyncio.sleep(CLAIM_AGAIN)


async def _reconcile_legs(service: Broadcasting, group: LiveGroup, viewers: set[str], there: dict[str, LegRow]) -> None:
    for leg_id in viewers - there.keys():
        if (viewer := service.drop_viewer(group, leg_id, RELAY_LOST)) is not None:
            service.spawn(viewer.dialog.bye(RELAY_LOST))
    for row in there.values():
        if row.leg_id != group.leg_id and row.leg_id not in group.viewers and not group.pending:
            await service.remove_leg(group, row.leg_id)
            continue
        viewer = group.viewers.get(row.leg_id)
        if viewer is not None and not row.packets:
            service.spawn(play(service, group, viewer.dialog))
        if row.lost:
            leg_lost(service, LegLost(row.group_id, row.epoch, row.leg_id, "silent"))
    if group.state == "lost" and group.grace is None:
        group.state = "live"
        broadcaster_lost(service, group)


def _group(claim: Broadcast, policy: ServicePolicy) -> LiveGroup:
    return LiveGroup(
        channel=claim.channel,
        leg_id=claim.leg_id,
        formats=load_formats(claim.media),
        service=claim.service,
        policy=policy,
        epoch=claim.epoch,
        state="lost" if claim.state == "lost" else "live",
        opened_at=claim.opened_at,
        source_version=_later_version(),
    )


def _later_version() -> int:
    """Answers after a restart must carry a newer o= version than any before it."""
    return int(time.time())
